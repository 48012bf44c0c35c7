"""OpenAI's HTTP API over the frontend's own spine.

    border     what stands around every request: counting, errors, a caller who leaves
    exchange   one HTTP request and its answer
    routes     which path does what: `listing`, `embeddings`, `generation`, which is the spine
    options    how jobs of this API are queued
    fields     a JSON object read by name and kind
    requests   a body becomes GenerateRequests, with `formats` for what constrains the output
    styles     what differs between text completions and chat
    logprobs   log-probabilities as either of them writes them
    answers    results gathered into one object
    events     results as server-sent events, each with a cursor from which any frontend goes on
    errors     the tree of millrace.errors as OpenAI's error objects

Nothing else of the frontend knows of it but `server.py`, which mounts it.
"""
