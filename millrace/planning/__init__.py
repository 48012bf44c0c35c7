"""How many workers a rate needs: `millrace plan`.

    sweep → one worker as measured → queueing model → smallest fleet within the SLO → simulation: how far it is off

A fleet is W workers with S slots each that take from one queue whenever they have room: W·S servers, M/G/c, but that
those of one worker slow each other down as the sweep's closed loop has shown. It is a model of the workers alone: one
model, one class, workers alike, Poisson arrivals; Redis, frontends and the network are taken for free, so that a rate
beyond what they were measured to bear needs more of them too.
"""
