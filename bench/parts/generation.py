"""Generation: output tokens a second of a Llama of 125 million weights, greedy, beside a bare loop."""

from pathlib import Path
from typing import Any

import numpy as np

from bench import blobs
from bench.bare_generation import Bare
from bench.children import measure_bare_generation, measure_streams
from bench.fleet import serving
from bench.models import llama
from bench.report import Figure, Part
from bench.run import Run, median, percentile
from bench.streams import Measured, Streams
from millrace.v1.generation_pb2 import GenerateRequest, Sampling, Stopping, TokenIds

NAME, MODEL = "generation", "llama"
AIM = 0.85
PROMPT_TOKENS = 128
OUTPUT_TOKENS = (16, 112)
LEAST_ALIKE = 0.9
"""Of the texts, how many must be the bare runtime's to the last token; a near tie may fall the other way."""


async def run(run: Run) -> Part:
    """Raises ValueError where the service's texts are not the bare runtime's."""
    bare, requests = _prepare(run)
    rounds, measured = list[dict[str, Any]](), list[Measured]()
    async with serving(run.repository(MODEL), run.settings.cores) as fleet:
        for number in range(run.settings.rounds):
            alone = await measure_bare_generation(bare)
            run.say(NAME, "bare", f"{alone.rate:.1f} tokens/s")
            spec = Streams(
                address=fleet.address,
                requests=str(requests),
                callers=run.settings.generation_slots,
                channels=run.settings.channels,
            )
            before = fleet.cpu_s()
            served = await measure_streams(spec)
            used = fleet.cpu_since(before) | {"client": served.cpu_s}
            alike = _alike(alone.token_ids, served.token_ids)
            run.say(
                NAME,
                f"service, round {number + 1}",
                f"{served.rate:.1f} tokens/s, ratio {served.rate / alone.rate:.3f}",
            )
            rounds.append({"bare": alone.rate, "service": served.rate, "alike": alike, "cpu_s": used})
            measured.append(served)
    return Part(
        name=NAME,
        title=f"Generation: {bare.slots} callers, prompts of {PROMPT_TOKENS} tokens, outputs of 16 to 112, greedy",
        figures=_figures(rounds, measured),
        notes=(f"texts that are the bare runtime's to the last token: {median([r['alike'] for r in rounds]):.0%}",),
        data={"rounds": rounds},
    )


def _prepare(run: Run) -> tuple[Bare, Path]:
    """Writes the model and the file of requests."""
    settings = run.settings
    folder = llama.write(run.repository(MODEL), MODEL)
    random = np.random.default_rng(settings.seed)
    count = settings.generation_requests
    prompts = random.integers(1, llama.LLAMA.vocabulary_size, (count, PROMPT_TOKENS)).tolist()
    tokens = random.integers(OUTPUT_TOKENS[0], OUTPUT_TOKENS[1] + 1, count).tolist()
    requests = run.folder / "generate"
    blobs.write(requests, [_request(*pair) for pair in zip(prompts, tokens, strict=True)])
    bare = Bare(
        graph=str(folder / "model.onnx"),
        layers=llama.LLAMA.layers,
        kv_heads=llama.LLAMA.kv_heads,
        head_size=llama.LLAMA.head_size,
        vocabulary=llama.LLAMA.vocabulary_size,
        context=llama.LLAMA.context_length,
        slots=settings.generation_slots,
        threads=settings.cores,
        prompts=prompts,
        tokens=tokens,
    )
    return bare, requests


def _request(prompt: list[int], tokens: int) -> bytes:
    return GenerateRequest(
        model=MODEL,
        tokens=TokenIds(ids=prompt),
        sampling=Sampling(temperature=0),
        stopping=Stopping(max_tokens=tokens, ignore_eos=True),
    ).SerializeToString()


def _alike(expected: list[list[int]], found: list[list[int]]) -> float:
    if [len(tokens) for tokens in expected] != [len(tokens) for tokens in found]:
        raise ValueError("the service's texts are not as long as the bare runtime's")
    alike = sum(one == other for one, other in zip(expected, found, strict=True)) / len(expected)
    if alike < LEAST_ALIKE:
        raise ValueError(f"only {alike:.0%} of the service's texts are the bare runtime's")
    return alike


def _figures(rounds: list[dict[str, Any]], measured: list[Measured]) -> tuple[Figure, ...]:
    rate = Figure(
        name="output tokens a second",
        value=median([entry["service"] for entry in rounds]),
        unit="tokens/s",
        bare=median([entry["bare"] for entry in rounds]),
        ratios=tuple(entry["service"] / entry["bare"] for entry in rounds),
        aim=AIM,
    )
    times = [
        Figure(name=f"{name}, p{percent}", value=median([percentile(values, percent) for values in each]), unit="ms")
        for name, each in (
            ("first token", [entry.first_ms for entry in measured]),
            ("each further token", [entry.per_token_ms for entry in measured]),
        )
        for percent in (50, 99)
    ]
    return (rate, *times)
