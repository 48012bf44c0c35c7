"""Who calls, and what they may do.

    credentials   what a call brings: of gRPC's metadata, or of HTTP's headers
    caller        who it is: a tenant, and its policy (millrace.tenants)
    gate          from the one to the other: open to everybody, or guarded
    watched       a file that is read again when it changes
    tokens        JWTs, checked against the public keys of whoever issues them
    spending      what a tenant may take of the whole fleet (millrace.queue.quota), asked once for each job
    closed        a path that has no border, and is for administrators

The borders ask the gate before anything else, and tell who called to what they stand around.
"""
