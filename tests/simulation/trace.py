"""What happened in a schedule, line by line, by virtual time, in words that are the same at every replay."""

from collections.abc import Sequence
from enum import Enum

import msgpack

from millrace.queue.keys import JobRef
from millrace.queue.types import Emission, Ending, Submission
from tests.simulation.store import Look
from tests.simulation.verbs import Emit, EndJob, Forget, Reap, Release, Renew, Submit, Take, Unwatch, Watch

RECORD = (b"state", b"epoch", b"last", b"reason")
"""What is told of a job's hash."""


class Trace:
    """`lines` stays empty unless it was asked for: most schedules need none."""

    def __init__(self, *, wanted: bool = False) -> None:
        self.wanted = wanted
        self.lines: list[str] = []
        self._tokens: dict[str, str] = {}

    def note(self, now: float, who: str, what: str, *details: object) -> None:
        if self.wanted:
            line = " ".join([what, *map(self._tell, details)])
            self.lines.append(f"{now * 1000:10.2f}  {who:<9} {line.rstrip()}")

    def _tell(self, thing: object) -> str:
        match thing:
            case Submit(submission=submission):
                return self._tell(submission)
            case Submission(ref=ref, fingerprint=fingerprint, timeout_ms=timeout_ms, watcher=watcher):
                return f"{ref.job} request={fingerprint[:2]} timeout={timeout_ms} watcher={watcher or '-'}"
            case Watch(frontend=frontend, refs=refs) | Unwatch(frontend=frontend, refs=refs):
                return f"{frontend} {self._tell(refs)}"
            case EndJob(ref=ref, ending=ending):
                return f"{ref.job} {self._tell(ending)}"
            case Forget(refs=refs):
                return self._tell(refs)
            case Take(sequence=sequence, jobs=jobs, alone=alone):
                return f"#{sequence} jobs={jobs} {'alone' if alone else 'busy'}"
            case Emit(emissions=emissions):
                return self._tell(emissions)
            case Emission(ref=ref, token=token, offset=offset, ending=ending):
                return f"{ref.job}@{self._name(token)}:{offset}{f' {self._tell(ending)}' if ending else ''}"
            case Renew(held=held) | Release(held=held):
                return " ".join(f"{ref.job}@{self._name(token)}" for ref, token, *_ in held)
            case Reap() | None:
                return ""
            case Ending(code=code, reason=reason):
                return f"{code.name}{f'/{reason}' if reason else ''}"
            case JobRef():
                return thing.job
            case Look(state=state, reason=reason):
                return f"[{state or 'gone'}{f' {reason}' if reason else ''}]"
            case Enum():
                return str(thing.value)
            case bytes():
                return self._tell_bytes(thing)
            case dict():
                return self._tell([thing[field] for field in RECORD if field in thing])
            case str():
                return thing
            case Sequence():
                return " ".join(map(self._tell, thing)) or "nothing"
            case _:
                return str(thing)

    def _tell_bytes(self, raw: bytes) -> str:
        """Text, or a packed reply of take; anything else by its length."""
        if raw[:1] == b"\x92":
            hold, leases = msgpack.unpackb(raw, raw=True)
            told = [f"{lease[0].decode()}@{self._name(lease[1].decode())}+{lease[5]}" for lease in leases or ()]
            return " ".join(["hold"] * bool(hold) + told) or "nothing"
        return raw.decode() if raw.isascii() and raw.decode().isprintable() and len(raw) < 40 else f"<{len(raw)} bytes>"

    def _name(self, token: str) -> str:
        """Lease tokens are random: here they are numbered as they come."""
        return self._tokens.setdefault(token, f"L{len(self._tokens) + 1}")
