"""spoken: a small convolutional network that hears digits, from a speech synthesiser's voices to a served transcript.

    voices ─► synthesis ─► corpus ─► augment, features ─► train ─► export ─► optimise ─► evaluate ─► serve ─► card

`python -m examples.speech --help` runs the whole path, or one part of it.
"""
