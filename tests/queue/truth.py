"""What must hold of the keys themselves, whatever has happened: the legend in keys.py, as a check.

Everything is recomputed from the job hashes. `differences` answers sentences; none means that the keys agree.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from millrace.queue import wire
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import End, JobRecord, Result, Seal, State
from tests.queue.probe import Key

WHILE_NON_EMPTY = re.compile(r"(waiting:.*|struck|fair:\d+|running|due)")
JOB_KEYS = re.compile(r"(mr:job-index|mr:\{.*\}:(job|payload|results|waiting|struck|fair|running|due)\b)")

Keys = dict[str, Key]


def differences(model: ModelVersion, keys: Keys, now: int, *, was_away: bool) -> list[str]:
    """What is wrong with a model's keys. Where the server was away, the next reap will set right what is due."""
    return list(_differences(model, keys, now, was_away))


def leaked(keys: Keys) -> list[str]:
    """Keys of jobs that are left when every job has ended and expired (I9)."""
    return [name for name in keys if JOB_KEYS.match(name)]


def hashes(model: ModelVersion, keys: Keys) -> dict[str, dict[str, bytes]]:
    """The fields of every job."""
    start = f"{model.base}job:"
    return {name.removeprefix(start): key.content for name, key in keys.items() if name.startswith(start)}


def record(model: ModelVersion, job: str, fields: dict[str, bytes]) -> JobRecord:
    return wire.decode_record(JobRef.parse(model, job), {name.encode(): value for name, value in fields.items()})


def _differences(model: ModelVersion, keys: Keys, now: int, was_away: bool) -> Iterator[str]:
    base = model.base
    jobs = hashes(model, keys)
    ended = {job for job, fields in jobs.items() if fields["state"] == b"ended"}
    waiting = {job for job, fields in jobs.items() if fields["state"] == b"waiting"}
    running = set(jobs) - ended - waiting
    yield from _check_lifetimes(base, keys)
    yield from _same("running", set(_content(keys, f"{base}running")), running)
    yield from _same("due", set(_content(keys, f"{base}due")), waiting | running)
    yield from _check_lines(base, keys, {job: jobs[job] for job in waiting})
    yield from _check_counts(_content(keys, f"{base}load"), jobs)
    for job, fields in jobs.items():
        has_payload = f"{base}payload:{job}:{fields['fingerprint'].decode()}" in keys
        if has_payload != (job not in ended) and (has_payload or now < int(fields["deadline"])):
            yield f"{job} is {fields['state'].decode()}, payload: {has_payload}"
    for job, fields in jobs.items():
        yield from _check_job(base, keys, job, fields)
        if job not in ended and not was_away:
            yield from _check_due(base, keys, job, fields)


def _check_lifetimes(base: str, keys: Keys) -> Iterator[str]:
    for name, key in keys.items():
        if key.expire_ms < 0 and not WHILE_NON_EMPTY.fullmatch(name.removeprefix(base)):
            yield f"{name} never expires"


def _check_lines(base: str, keys: Keys, waiting: dict[str, dict[str, bytes]]) -> Iterator[str]:
    lines: dict[str, dict[str, float]] = {}
    tenants: dict[str, set[str]] = {}
    for job, fields in waiting.items():
        line = "struck"
        if fields["strikes"] == b"0":
            priority, tenant = fields["class"].decode(), fields["tenant"].decode()
            line = f"waiting:{priority}:{tenant}"
            tenants.setdefault(f"fair:{priority}", set()).add(tenant)
        lines.setdefault(line, {})[job] = float(fields["sequence"])
    found = {name.removeprefix(base) for name in keys if re.match(r"(waiting|struck|fair)", name.removeprefix(base))}
    yield from _same("lines", found, set(lines) | set(tenants))
    for line, members in lines.items():
        yield from _same(line, _content(keys, base + line), members)
    for fair, names in tenants.items():
        yield from _same(fair, set(_content(keys, base + fair)), names)


def _check_counts(load: dict[str, bytes], jobs: dict[str, dict[str, bytes]]) -> Iterator[str]:
    truth, weights = Counter[str](), dict[str, float]()
    for fields in jobs.values():
        if fields["state"] == b"waiting":
            tenant, cost = fields["tenant"].decode(), int(fields["cost"])
            priority = fields["class"].decode()
            truth.update({"jobs": 1, f"jobs:{tenant}": 1})
            truth.update({f"cost:{priority}": cost, f"cost:{priority}:{tenant}": cost})
            weights[f"weight:{tenant}"] = float(fields["weight"])
        if fields["state"] != b"ended":
            truth.update({"bytes": int(fields["bytes"]), f"bytes:{fields['tenant'].decode()}": int(fields["bytes"])})
    counted = {name: int(value) for name, value in load.items() if re.match(r"(jobs|cost|bytes)\b", name)}
    yield from _same("weights", {name: float(load[name]) for name in load if name.startswith("weight:")}, weights)
    yield from _same("load", counted, {name: number for name, number in truth.items() if number})


def _check_job(base: str, keys: Keys, job: str, fields: dict[str, bytes]) -> Iterator[str]:
    state = State(fields["state"].decode())
    if (state is State.RUNNING) != bool(fields["token"]) or (state is State.RUNNING) != bool(fields["holder"]):
        yield f"{job} is {state} with token {fields['token']!r} and holder {fields['holder']!r}"
    entries = [wire.decode_entry(*entry) for entry in _content(keys, f"{base}results:{job}") or ()]
    results = [entry for entry in entries if isinstance(entry, Result)]
    epochs = [entry.epoch for entry in entries if isinstance(entry, Seal)]
    ends = [entry for entry in entries if isinstance(entry, End)]
    yield from _same(f"{job}: offsets", [entry.offset for entry in results], list(range(1, int(fields["last"]) + 1)))
    yield from _same(f"{job}: epochs", epochs, list(range(1, int(fields["epoch"]) + 1)))
    if len(ends) != (state is State.ENDED) or (ends and entries[-1] is not ends[0]):
        yield f"{job} is {state} and has {len(ends)} ends"


def _check_due(base: str, keys: Keys, job: str, fields: dict[str, bytes]) -> Iterator[str]:
    expiry = max([int(fields["keep_until"]), *_expiries(fields["watchers"])])
    if fields["state"] == b"running":
        expiry = min(expiry, int(_content(keys, f"{base}running")[job]))
    due = _content(keys, f"{base}due").get(job, 0)
    amnesty = int(_content(keys, f"{base}pulse").get("amnesty", 0))
    if due > min(max(expiry, amnesty), int(fields["deadline"])):
        yield f"{job} is due at {due:.0f}, after its expiry at {expiry}"


def _expiries(watchers: bytes) -> list[int]:
    return [int(expiry) for expiry in re.findall(rb"=(\d+)", watchers)]


def _content(keys: Keys, name: str) -> Any:
    return keys[name].content if name in keys else {}


def _same(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what}: found {found}, expected {expected}"
