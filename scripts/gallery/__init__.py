"""`make gallery`: the README's pictures of what models do through the service, drawn from a fleet on this machine.

docs/completion.gif    a completion in a terminal, as it streamed, while its worker was killed
docs/digits.png        held-out digits, with the labels that the service gave
docs/transcript.png    held-out sounds of examples/speech, with the words that the service heard
"""
