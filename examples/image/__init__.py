"""digits: a small residual network for handwritten digits, from scikit-learn's images to the service and its figures.

    data ─► augment ─► train ─► export ─► optimise ─► serve ─► card

`python -m examples.image --help` runs the whole path, or one part of it.
"""
