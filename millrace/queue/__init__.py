"""The queue's contract: jobs, leases, interest, the results log, and the mailbox that saves polling it."""

from millrace.queue.connection import connect
from millrace.queue.durability import Durability, Fast, Replicated
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.mailbox import Inbox, Mailbox
from millrace.queue.queue import JobQueue
from millrace.queue.registry import ModelEntry, Registry, WorkerEntry
from millrace.queue.types import (
    Emission,
    End,
    Ending,
    Entry,
    JobRecord,
    Lease,
    Limits,
    Priority,
    Result,
    Seal,
    Seen,
    State,
    Submission,
    Taken,
    Verdict,
)

__all__ = [
    "Durability",
    "Emission",
    "End",
    "Ending",
    "Entry",
    "Fast",
    "Inbox",
    "JobQueue",
    "JobRecord",
    "JobRef",
    "Lease",
    "Limits",
    "Mailbox",
    "ModelEntry",
    "ModelVersion",
    "Priority",
    "Registry",
    "Replicated",
    "Result",
    "Seal",
    "Seen",
    "State",
    "Submission",
    "Taken",
    "Verdict",
    "WorkerEntry",
    "connect",
]
