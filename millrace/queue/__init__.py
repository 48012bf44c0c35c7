"""The queue's contract: jobs, leases, interest, the results log, and the mailbox that saves polling it."""

from millrace.queue.commands import Command, Commands, Verb
from millrace.queue.connection import connect
from millrace.queue.durability import Durability, Fast, Replicated
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.mailbox import Inbox, Mailbox
from millrace.queue.queue import JobQueue
from millrace.queue.quota import Quota, Quotas
from millrace.queue.registry import Carried, Indexed, ModelEntry, ModelState, Registry, WorkerEntry
from millrace.queue.statistics import ModelTotals, Runs, Spent, Statistics
from millrace.queue.types import (
    Emission,
    End,
    EndedJob,
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
    "Carried",
    "Command",
    "Commands",
    "Durability",
    "Emission",
    "End",
    "EndedJob",
    "Ending",
    "Entry",
    "Fast",
    "Inbox",
    "Indexed",
    "JobQueue",
    "JobRecord",
    "JobRef",
    "Lease",
    "Limits",
    "Mailbox",
    "ModelEntry",
    "ModelState",
    "ModelTotals",
    "ModelVersion",
    "Priority",
    "Quota",
    "Quotas",
    "Registry",
    "Replicated",
    "Result",
    "Runs",
    "Seal",
    "Seen",
    "Spent",
    "State",
    "Statistics",
    "Submission",
    "Taken",
    "Verb",
    "Verdict",
    "WorkerEntry",
    "connect",
]
