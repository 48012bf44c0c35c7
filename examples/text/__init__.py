"""pycode, a small language model of Python source, from the standard library's files to a decoder that is served:

    data ─► train ─► export ─► measure ─► optimise ─► serve ─► card

And origin, a classifier of the same sources, in `classifier`.

`python -m examples.text --help` runs the whole path, or one part of it.
"""
