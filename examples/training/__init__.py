"""What the examples' trainings share: the loop and its schedule, checkpoints, curves, and several processes.

An example brings a `Task`: its network, the loss of a step, a validation. Everything random in a step is a function of
the seed, the step and the row, never of what ran before: so a run that was killed and resumed gives the weights of one
that was not, bit for bit, and several processes learn from the rows that one would.
"""
