"""Generations in real processes whose workers die in the middle, and what became of each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millrace import AsyncClient
from millrace.engine import Work
from millrace.queue import JobQueue, JobRef, ModelVersion, Seal
from tests.chaos.divergence import Divergence, Sampled
from tests.checker.history import Difference
from tests.survival.fleet import Fleet, Transcript, all_have, queue_of, stream
from tests.survival.verdict import differences
from tests.worker.generation.jobs import request

PROMPTS = ("import os\n", "class Stack:\n", "def parse(text):\n", "for i in range(", "try:\n", "async def main():\n")
TEMPERATURE, TOP_P = 0.8, 0.95
WORKERS, WAVE = 2, 120
"""A wave fills nearly all slots of the workers, so that its jobs run at once."""
WITHIN_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One generation; the even ones are greedy."""

    number: int
    tokens: int

    @property
    def prompt(self) -> str:
        return f"# {self.number}\n{PROMPTS[self.number % len(PROMPTS)]}"

    @property
    def sampled(self) -> Sampled | None:
        return Sampled(temperature=TEMPERATURE, top_p=TOP_P, seed=self.number) if self.number % 2 else None

    @property
    def options(self) -> dict[str, Any]:
        drawn = {"temperature": TEMPERATURE, "top_p": TOP_P, "seed": self.number}
        how = drawn if self.sampled else {"temperature": 0.0}
        return {"max_tokens": self.tokens, "ignore_eos": True} | how


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of a job."""

    job: Job
    transcript: Transcript
    taken_at: tuple[int, ...]
    """How many messages its log held each time that a further worker took it."""

    @property
    def token_ids(self) -> list[int]:
        return self.logged(len(self.transcript.messages))

    def logged(self, messages: int) -> list[int]:
        """The tokens of the first messages."""
        deltas = (message.deltas[0] for message in self.transcript.messages[:messages])
        return [token_id for delta in deltas for token_id in delta.token_ids]

    def work(self, messages: int) -> Work:
        """The job as a worker takes it behind so many messages."""
        log = [message.SerializeToString() for message in self.transcript.messages[:messages]]
        body = request(self.job.prompt, **self.job.options)
        return Work(lease=f"{self.job.number}", job=self.transcript.job_id, request=body, results=log)


async def run_jobs(
    running: Fleet, model: str, name: str, jobs: Sequence[Job], *, kills: int
) -> tuple[list[Ran], list[Difference]]:
    """Wave after wave of the jobs, in the given order; all workers are killed and started anew so many times in each.
    Answers what became of them, by number, and what the checker says."""
    seen = {job: Transcript(job_id=f"{model}-{name}-{job.number}", prompt=job.prompt) for job in jobs}
    async with AsyncClient(*running.addresses) as client:
        for start in range(0, len(jobs), WAVE):
            wave = {job: seen[job] for job in jobs[start : start + WAVE]}
            await _wave(running, client, model, wave, kills)
    found = await differences(running, model, list(seen.values()))
    async with queue_of(running) as queue:
        ran = [
            Ran(job=job, transcript=seen[job], taken_at=await _taken_at(queue, model, seen[job]))
            for job in sorted(jobs, key=lambda job: job.number)
        ]
    return ran, found


async def _wave(running: Fleet, client: AsyncClient, model: str, wave: dict[Job, Transcript], kills: int) -> None:
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        for job, transcript in wave.items():
            tasks.create_task(stream(client, transcript, model, **job.options))
        for kill in range(kills):
            tokens = min(job.tokens for job in wave) * (kill + 1) // (kills + 2)
            await all_have(list(wave.values()), tokens, WITHIN_S)
            await asyncio.gather(*map(running.replace, running.workers))


async def _taken_at(queue: JobQueue, model: str, transcript: Transcript) -> tuple[int, ...]:
    ref = JobRef(ModelVersion(model, "1"), "default", transcript.job_id)
    log = await queue.read(ref, 0, 1_000_000)
    return tuple(entry.last_offset for entry in log if isinstance(entry, Seal) and entry.last_offset > 0)


def divergence(calm: Ran, other: Ran) -> Divergence | None:
    """Where two runs of a job part; None where that is not behind a continuation."""
    pairs = zip(calm.token_ids, other.token_ids, strict=True)
    position = next(index for index, (expected, found) in enumerate(pairs) if expected != found)
    before = [messages for messages in other.taken_at if len(other.logged(messages)) <= position]
    if not before:
        return None
    return Divergence(
        work=other.work(before[-1]),
        sampled=other.job.sampled,
        position=position,
        logged=len(other.logged(before[-1])),
        expected=calm.token_ids[position],
        found=other.token_ids[position],
    )
