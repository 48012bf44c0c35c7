"""digits: a small residual network for handwritten digits, from scikit-learn's images to a graph the worker serves.

    data ─► augment ─► train ─► export ─► evaluate ─► card

`python -m examples.image --help` runs the whole path, or one part of it.
"""
