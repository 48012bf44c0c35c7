"""`millrace evaluate`: how good a model is, measured through the service that serves it.

data: a file or folder, checked line by line, becomes examples
asking: each example is a call of priority BATCH; its answer goes into a journal, where the next start finds it
scores: answers become measures with 95 % intervals; two models are compared example by example
report: the result as JSON, and as one page
"""
