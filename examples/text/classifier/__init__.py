"""origin: a small transformer encoder that says which package of the standard library a function comes from.

    data ─► train ─► export ─► optimise ─► serve ─► report

`python -m examples.text.classifier --help` runs the whole path, or one part of it.
"""
