"""The ceiling: the engine alone."""

import time
from pathlib import Path

from millrace.engine import Work
from millrace.v1.generation_pb2 import GenerateRequest, Sampling, Stopping
from services.worker import repository

PROMPT = "import os\n\n\ndef walk(path):\n"


def request(model: str, seed: int, max_tokens: int) -> GenerateRequest:
    """One stream's request: sampled, and as long as asked for."""
    return GenerateRequest(
        model=model,
        text=PROMPT,
        sampling=Sampling(temperature=0.8, top_p=0.95, seed=seed),
        stopping=Stopping(max_tokens=max_tokens, ignore_eos=True),
    )


def run_bare(models: Path, model: str, streams: int, max_tokens: int, threads: int) -> float:
    """Tokens per second of all streams together, from adding them to the last one's end."""
    found, _ = repository.scan(models)
    (chosen,) = [entry for entry in found if entry.name == model][-1:]
    engine = repository.load(chosen, "cpu", threads)
    began = time.perf_counter()
    for index in range(streams):
        body = request(model, index, max_tokens).SerializeToString()
        engine.add(Work(lease=str(index), job=str(index), request=body))
    open_jobs = streams
    while open_jobs:
        open_jobs -= sum(output.last for output in engine.step() or ())
    return streams * max_tokens / (time.perf_counter() - began)
