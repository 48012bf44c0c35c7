"""A page for people, on the HTTP address: the fleet as it is now, and a playground.

It is plain HTML and JavaScript that this process holds in memory, asks nobody but the frontend it came from, and
generates over OpenAI's API, as any other caller does.

    routes     which path does what
    border     what stands around every request: counting, errors, a viewer who leaves
    guard      who may ask, and what the browser is told that the page may do
    feed       the fleet once a second, to all that look
    snapshot   what is told of it
    playing    what the playground asks for
    static/    what the browser gets

Nothing else of the frontend knows of it but `server.py`, which adds its routes.
"""
