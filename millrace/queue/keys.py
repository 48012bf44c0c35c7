"""Every key in Redis, in one place.

All keys of one model version begin with `mr:{NAME/VERSION}:`; the braces are a hash tag, so each script touches one
slot of a Redis Cluster. `JOB` is `TENANT:JOB_ID`, `CLASS` a priority class (30, 20, 10). Every time is the server's
clock in milliseconds.

    key                          type    writer → reader          lifetime        content
    ───────────────────────────  ──────  ───────────────────────  ──────────────  ─────────────────────────────────────
    mr:job-index:JOB             hash    frontend → frontend      deadline +      model, fingerprint, claimed (time);
                                                                  retention, 1 m  an anonymous job has none
    mr:workers                   hash    worker → frontend        each field 5 s  worker id → expiry and JSON
    mr:models                    hash    worker → frontend        each field 7 d  NAME/VERSION → expiry and JSON
    mr:commands                  hash    frontend → worker        none            REPOSITORY/NAME → JSON: the last word
                                                                                  on a model, and its serial number;
                                                                                  serial: the newest
    mr:statistics                channel frontend → all           none            NONCE: announce what was done, and
    mr:heard:NONCE               string  all → frontend           10 s            add 1 here
    mr:mailbox:FRONTEND          channel scripts → frontend       none            what a script did to watched jobs
    mr:quota:{TENANT}:rates      hash    frontend → frontend      a minute after  requests, tokens: when the tenant's
                                                                  it is full      bucket will be full again
    mr:quota:{TENANT}:jobs       hash    frontend → frontend      deadline + 2 m  MODEL:JOB_ID → what the job has paid;
                                                                                  see scripts/quota.lua
    …:job:JOB                    hash    scripts → scripts        deadline + 7 d; the job; see scripts/prelude.lua
                                                                  from its end
                                                                  the retention
    …:payload:JOB:FINGERPRINT    string  frontend → worker        10 s; queued:   the request's bytes
                                                                  to the end, or
                                                                  deadline + 1 m
    …:results:JOB                stream  scripts → all            as the job's    the log: LAST-EPOCH seal,
                                                                                  OFFSET-0 result, LAST-999999 end
    …:waiting:CLASS:TENANT       zset    scripts → take           while non-empty job → sequence number (a FIFO that
                                                                                  a released job re-enters in front)
    …:struck                     zset    reap → take              while non-empty job → sequence number; jobs with a
                                                                                  strike, which run alone
    …:hold                       string  take → take              one lease       the worker that makes room for one
    …:fair:CLASS                 zset    scripts → take, worker   while non-empty waiting tenant → virtual time
    …:rest:CLASS                 zset    scripts → scripts        while non-empty tenant that does not wait, but has
                                                                                  been served ahead of the clock → its
                                                                                  virtual time
    …:running                    zset    scripts → reap           while non-empty job → lease expiry
    …:due                        zset    scripts → reap           while non-empty job → a time not later than its next
                                                                                  expiry of any kind
    …:load                       hash    scripts → scripts, all   8 days idle     jobs, jobs:TENANT, cost:CLASS and
                                                                                  cost:CLASS:TENANT waiting; bytes and
                                                                                  bytes:TENANT not ended;
                                                                                  weight:TENANT; sequence; clock:CLASS;
                                                                                  unserved (since when jobs have
                                                                                  waited for a first worker)
    …:pace                       hash    scripts → submit, all    10 minutes idle how fast work gets done; see
                                                                                  scripts/pace.lua
    …:pulse                      hash    reap → scripts           a day idle      last (when reap last ran), due (until
                                                                                  when it must again), amnesty
    …:take:WORKER                hash    take → take              two leases      sequence, reply: the last take again
    …:barrier                    string  frontend → replicas      a minute        written before each WAIT
    …:statistics                 hash    all → frontend           each field 1 d  process → expiry and JSON: what it has
                                                                                  done of the model
    …:untold                     list    scripts → reap           an hour         ends that no worker told of, packed
    …:bell                       list    scripts → worker         a minute        hints that work waits
"""

import re
import secrets
from dataclasses import dataclass

PREFIX = "mr:"
WORKERS = PREFIX + "workers"
MODELS = PREFIX + "models"
STATISTICS = PREFIX + "statistics"
COMMANDS = PREFIX + "commands"

TENANT_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
JOB_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
ANONYMOUS = "."
"""How the id of a job begins that nobody but its own call knows: no caller can ask for one."""


@dataclass(frozen=True, slots=True, order=True)
class ModelVersion:
    """One version of one model: the unit that owns a queue."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def base(self) -> str:
        """The start of all its keys."""
        return f"{PREFIX}{{{self}}}:"

    @classmethod
    def parse(cls, text: str) -> "ModelVersion":
        name, _, version = text.rpartition("/")
        return cls(name, version)


@dataclass(frozen=True, slots=True, order=True)
class JobRef:
    """Names one job: its queue, and its id within its tenant."""

    model: ModelVersion
    tenant: str
    job_id: str

    @property
    def job(self) -> str:
        """The job's name in its queue's keys."""
        return f"{self.tenant}:{self.job_id}"

    @property
    def is_anonymous(self) -> bool:
        """Whether the job is in no index, so that it cannot be found by its name."""
        return self.job_id.startswith(ANONYMOUS)

    @staticmethod
    def anonymous_id() -> str:
        """A new id for a job that only its own call knows."""
        return ANONYMOUS + secrets.token_hex(16)

    @classmethod
    def parse(cls, model: ModelVersion, job: str) -> "JobRef":
        tenant, _, job_id = job.partition(":")
        return cls(model, tenant, job_id)


def job_index(tenant: str, job_id: str) -> str:
    return f"{PREFIX}job-index:{tenant}:{job_id}"


def payload(ref: JobRef, fingerprint: str) -> str:
    return f"{ref.model.base}payload:{ref.job}:{fingerprint}"


def results(ref: JobRef) -> str:
    return f"{ref.model.base}results:{ref.job}"


def job(ref: JobRef) -> str:
    return f"{ref.model.base}job:{ref.job}"


def fair(model: ModelVersion, priority: int) -> str:
    return f"{model.base}fair:{priority:d}"


def bell(model: ModelVersion) -> str:
    return f"{model.base}bell"


def heard(nonce: str) -> str:
    return f"{PREFIX}heard:{nonce}"


def statistics(model: ModelVersion) -> str:
    return f"{model.base}statistics"


def quota(tenant: str) -> str:
    """The start of the keys of what a tenant takes."""
    return f"{PREFIX}quota:{{{tenant}}}:"


def mailbox(frontend: str) -> str:
    return f"{PREFIX}mailbox:{frontend}"
