"""pycode: a small language model of Python source, from the standard library's files to a graph that the worker serves.

    data ─► tokenizer ─► train ─► export ─► evaluate (beside baseline) ─► card

`python -m examples.text --help` runs the whole path, or one part of it.
"""
