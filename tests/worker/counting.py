"""An engine for tests of the shell: each step gives each job its next number, until it has as many as it asked for."""

import time
from collections.abc import Sequence

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
        self.refused: list[str] = []
        self.added: dict[str, str] = {}
        """The job of each lease."""
        self.steps = 0
        self.aborted: list[str] = []
        self.largest_batch = 0
        self.broken = False

    def add(self, work: Work) -> None:
        request = GenerateRequest.FromString(work.request)
        if request.text == "refuse":
            self.refused.append(work.lease)
            return
        done = sum(len(GenerateResponse.FromString(body).deltas[0].token_ids) for body in work.results)
        self.jobs[work.lease] = (done, request.stopping.max_tokens)
        self.added[work.lease] = work.job

    def abort(self, lease: str) -> None:
        if self.jobs.pop(lease, None) is not None:
            self.aborted.append(self.added[lease])

    def capacity(self) -> Capacity:
        return Capacity(jobs=self.slots - len(self.jobs))

    def step(self) -> Sequence[Output] | None:
        if self.broken:
            raise RuntimeError("the device is gone")
        if not self.jobs and not self.refused:
            return None
        time.sleep(self.step_s)
        self.steps += 1
        self.largest_batch = max(self.largest_batch, len(self.jobs))
        refused = [Output(lease=lease, last=True, failure=_REFUSAL) for lease in self.refused]
        self.refused = []
        return refused + [output for lease in list(self.jobs) if (output := self._advance(lease))]

    def _advance(self, lease: str) -> Output | None:
        done, wanted = self.jobs.get(lease, (0, 0))
        if not wanted:
            return None
        if done + 1 < wanted:
            self.jobs[lease] = (done + 1, wanted)
        else:
            self.jobs.pop(lease, None)
        result = GenerateResponse(deltas=[CompletionDelta(text=f"{done} ", token_ids=[done])])
        return Output(lease=lease, result=result, last=done + 1 >= wanted, cost=done + 1)


_REFUSAL = Failure(code=Code.INVALID_ARGUMENT, reason="REFUSED", message="the engine refuses this prompt", field="text")
