"""An engine for tests of the shell: each step gives each job its next number, until it has as many as it asked for."""

import time
from collections.abc import Sequence

from millrace.engine import Capacity, Failure, Output, Work
from millrace.errors import Code
from millrace.v1.generation_pb2 import CompletionDelta, GenerateRequest, GenerateResponse


class CountingEngine:
    """Emits 0, 1, 2, … as token ids; `max_tokens` of the request says how many. The prompt "refuse" is refused."""

    def __init__(self, slots: int = 4, step_s: float = 0.002) -> None:
        self.slots, self.step_s = slots, step_s
        self.jobs: dict[str, tuple[int, int]] = {}
        self.refused: list[str] = []
        self.steps = 0
        self.aborted: list[str] = []
        self.largest_batch = 0
        self.broken = False

    def add(self, work: Work) -> None:
        request = GenerateRequest.FromString(work.request)
        if request.text == "refuse":
            self.refused.append(work.job)
            return
        done = sum(len(GenerateResponse.FromString(body).deltas[0].token_ids) for body in work.results)
        self.jobs[work.job] = (done, request.stopping.max_tokens)

    def abort(self, job: str) -> None:
        self.aborted.append(job)
        self.jobs.pop(job, None)

    def capacity(self) -> Capacity:
        return Capacity(jobs=self.slots - len(self.jobs))

    def step(self) -> Sequence[Output]:
        if self.broken:
            raise RuntimeError("the device is gone")
        time.sleep(self.step_s)
        self.steps += 1
        self.largest_batch = max(self.largest_batch, len(self.jobs))
        refused = [Output(job=job, last=True, failure=_REFUSAL) for job in self.refused]
        self.refused = []
        return refused + [self._advance(job) for job in list(self.jobs)]

    def _advance(self, job: str) -> Output:
        done, wanted = self.jobs.pop(job)
        if done + 1 < wanted:
            self.jobs[job] = (done + 1, wanted)
        result = GenerateResponse(deltas=[CompletionDelta(text=f"{done} ", token_ids=[done])])
        return Output(job=job, result=result, last=done + 1 >= wanted, cost=done + 1)


_REFUSAL = Failure(code=Code.INVALID_ARGUMENT, reason="REFUSED", message="the engine refuses this prompt", field="text")
