"""An engine for tests of the shell: each step gives each job its next number, until it has as many as it asked for."""

import threading
import time
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from millrace.engine import Capacity, Failure, Output, Signature, Work
from millrace.errors import Code
from millrace.v1.generation_pb2 import CompletionDelta, GenerateRequest, GenerateResponse


class CountingEngine:
    """Emits 0, 1, 2, … as token ids; `max_tokens` of the request says how many. The prompt "refuse" is refused."""

    lanes = 1
    signature = Signature()

    def __init__(self, slots: int = 4, step_s: float = 0.002) -> None:
        self.slots, self.step_s = slots, step_s
        self.jobs: dict[str, tuple[int, int]] = {}
        """What runs: how many numbers a job has, and how many it wants."""
        self.ended: dict[str, Output] = {}
        """What ends at the next step without running."""
        self.added: dict[str, str] = {}
        """The job of each lease."""
        self.behind: list[tuple[str, int]] = []
        """Each job that was added, and how many numbers its log had."""
        self.steps = self.numbers = 0
        self.aborted: list[str] = []
        self.largest_batch = 0
        self.broken = False
        self._lock = threading.Lock()

    def counters(self) -> dict[str, float]:
        return {"numbers": self.numbers}

    def add(self, work: Work) -> None:
        try:
            request = GenerateRequest.FromString(work.request)
            logged = [delta for body in work.results for delta in GenerateResponse.FromString(body).deltas]
        except DecodeError:
            request, logged = GenerateRequest(text="refuse"), []
        done, wanted = sum(len(delta.token_ids) for delta in logged), request.stopping.max_tokens
        with self._lock:
            self.added[work.lease] = work.job
            self.behind.append((work.job, done))
            if request.text == "refuse":
                self.ended[work.lease] = Output(lease=work.lease, last=True, failure=_REFUSAL)
            elif done >= wanted:
                self.ended[work.lease] = Output(lease=work.lease, last=True, cost=done)
            else:
                self.jobs[work.lease] = done, wanted

    def abort(self, lease: str) -> None:
        with self._lock:
            self.ended.pop(lease, None)
            if self.jobs.pop(lease, None) is not None:
                self.aborted.append(self.added[lease])

    def capacity(self) -> Capacity:
        return Capacity(jobs=self.slots - len(self.jobs))

    def step(self) -> Sequence[Output] | None:
        if self.broken:
            raise RuntimeError("the device is gone")
        with self._lock:
            ended, self.ended = list(self.ended.values()), {}
            running = list(self.jobs)
        if not running:
            return ended or None
        time.sleep(self.step_s)
        self.steps += 1
        self.largest_batch = max(self.largest_batch, len(running))
        with self._lock:
            return ended + [self._advance(lease) for lease in running if lease in self.jobs]

    def _advance(self, lease: str) -> Output:
        done, wanted = self.jobs[lease]
        self.numbers += 1
        if done + 1 < wanted:
            self.jobs[lease] = (done + 1, wanted)
        else:
            del self.jobs[lease]
        result = GenerateResponse(deltas=[CompletionDelta(text=f"{done} ", token_ids=[done])])
        return Output(lease=lease, result=result, last=done + 1 >= wanted, cost=done + 1)


_REFUSAL = Failure(code=Code.INVALID_ARGUMENT, reason="REFUSED", message="the engine refuses this prompt", field="text")
