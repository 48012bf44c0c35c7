"""Runs inputs of one target in this process, and notes what becomes of them."""

import re
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.target import Finding, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An input that broke a contract. `kind` is the same for all that are broken alike."""

    target: str
    index: int
    kind: str
    text: str
    data: bytes | None
    """None where the input was too large to be kept: it can be made again."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of a target's inputs."""

    target: str
    accepted: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    findings: list[Found] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + sum(found.index >= 0 for found in self.findings)


Note = Callable[[int, bytes, Tally], None]


def drive(
    target: Target,
    indices: Iterable[int],
    *,
    seconds: float,
    note: Note = lambda *_: None,
    report: Callable[[Found], None] = lambda _: None,
) -> Tally:
    """Runs those inputs. Raises nothing that an input brings about."""
    tally = Tally(target=target.name)

    def found(index: int, kind: str, text: str, data: bytes | None) -> None:
        tally.findings.append(Found(target=target.name, index=index, kind=kind, text=text, data=data))
        report(tally.findings[-1])

    with ExitStack() as stack:
        target.open(stack)
        most_held = _most_held()
        for index in indices:
            data = target.make(index)
            note(index, data, tally)
            began, worked = time.monotonic(), time.process_time()
            try:
                accepted = target.run(data)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                found(index, _kind(error), traceback.format_exc(), data)
                continue
            worked, held, most_held = time.process_time() - worked, most_held, _most_held()
            tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)
            if worked > seconds:
                found(index, "slow", f"took {worked:.1f} s of the processor", data)
            elif most_held - held > target.growth_bytes:
                found(index, "large", f"took {(most_held - held) >> 20} MB more than the process had ever held", data)
            elif accepted:
                tally.accepted += 1
            else:
                tally.refused += 1
        try:
            target.finish()
        except Exception as error:
            found(-1, _kind(error), traceback.format_exc(), None)
    return tally


def _most_held() -> int:
    """In bytes. Unlike `getrusage`, it knows nothing of the process from which this one was forked."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split(maxsplit=1)[0])


def _kind(error: BaseException) -> str:
    """The error's type, and what it says but for numbers, or where in our code it came from."""
    if isinstance(error, Finding):
        return re.sub(r"[^A-Za-z ]+", "…", str(error))[:60]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{type(error).__name__} {Path(own[-1].filename).name}:{own[-1].lineno}"
