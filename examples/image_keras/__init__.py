"""digits_keras: the digits of `examples.image` read by a residual network in Keras, from training to the service.

    data ─► train (TensorFlow, in an environment of its own) ─► millrace export ─► serve ─► the same figures

`python -m examples.image_keras --help` runs the whole path, or one part of it.
"""
