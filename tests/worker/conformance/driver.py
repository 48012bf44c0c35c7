"""Drives an engine as the shell does, and holds every output to what must be true of all."""

import threading
from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from millrace.engine import Engine, Output, Work

Result = Message | Callable[[], Message]


class Driver:
    """What was added to an engine, and what it gave. Steps may be made on several threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.added: set[str] = set()
        self.aborted: set[str] = set()
        self.ended: dict[str, Output] = {}
        self._results: dict[str, list[bytes]] = {}
        self._unmade: list[tuple[str, Result]] = []
        self._costs: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, lease: str, request: bytes, results: Sequence[bytes] = (), *, job: str = "", epoch: int = 1) -> None:
        """`job`: the lease's name, where nothing else is said."""
        self.added.add(lease)
        self.engine.add(Work(lease=lease, job=job or lease, request=request, results=tuple(results), epoch=epoch))

    @property
    def unended(self) -> set[str]:
        """What was added, has not ended, and was not aborted."""
        with self._lock:
            return self.added - self.ended.keys() - self.aborted

    def abort(self, lease: str) -> None:
        self.engine.abort(lease)
        self.aborted.add(lease)

    def step(self) -> list[Output] | None:
        outputs = self.engine.step()
        with self._lock:
            self._make()
            for output in outputs or ():
                self._receive(output)
        if outputs is None:
            return None
        leases = [output.lease for output in outputs]
        assert len(set(leases)) == len(leases), f"more than one output of a step for one job: {leases}"
        return list(outputs)

    def run(self, most_steps: int) -> None:
        """Steps until all that was added has ended or was aborted."""
        for _ in range(most_steps):
            if not self.unended:
                return
            assert self.step() is not None, f"nothing to run, and without an end: {self.unended}"
        assert not self.unended, f"{most_steps} steps did not end them"

    def log(self, lease: str) -> list[bytes]:
        """The job's results so far, without those that it was added with."""
        with self._lock:
            self._make()
        return self._results.get(lease, [])

    def _make(self) -> None:
        """Results become bytes when the engine has stepped on: what it gave stays as it was."""
        for lease, result in self._unmade:
            message = result() if callable(result) else result
            assert isinstance(message, Message)
            self._results.setdefault(lease, []).append(message.SerializeToString())
        self._unmade.clear()

    def _receive(self, output: Output) -> None:
        lease = output.lease
        assert lease in self.added, f"an output for {lease}, which was never added"
        assert lease not in self.ended, f"an output for {lease} behind its last"
        assert output.last or output.result is not None, f"an output for {lease} that says nothing"
        assert output.last or output.failure is None, f"{lease} has failed, and goes on"
        assert output.cost >= self._costs.get(lease, 0.0), f"the cost of {lease} fell to {output.cost}"
        self._costs[lease] = output.cost
        if output.result is not None:
            self._unmade.append((lease, output.result))
        if output.last:
            self.ended[lease] = output
