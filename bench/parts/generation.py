"""Generation: output tokens a second of a Llama of 125 million weights, greedy, beside a bare loop."""

from typing import Any

from bench import blobs
from bench.children import measure_bare_generation, measure_streams
from bench.completions import Completions
from bench.fleet import serving
from bench.generation import workloads
from bench.generation.models import Weights
from bench.generation.settings import Settings
from bench.generation.stage import share_alike
from bench.generation.workloads import Requests
from bench.models import llama
from bench.report import Figure, Part
from bench.run import Run, median, percentile
from bench.streams import Measured, Streams

NAME, MODEL = "generation", "llama"
AIM = 0.85
LEAST_ALIKE = 0.9
"""Of the texts, how many must be the bare runtime's to the last token; a near tie may fall the other way."""


async def run(run: Run) -> Part:
    """Raises ValueError where the service's texts are not the bare runtime's."""
    settings, weights = run.settings, _write(run)
    shape = Settings(requests=settings.generation_requests, callers=settings.generation_slots)
    rounds, measured = list[dict[str, Any]](), list[Measured]()
    async with serving(run.repository(MODEL), settings.cores) as fleet:
        for number in range(settings.rounds):
            requests = workloads.closed(shape, weights.vocabulary, settings.seed + number)
            bare = weights.bare(requests, slots=settings.generation_slots, threads=settings.cores)
            alone = await measure_bare_generation(bare)
            run.say(NAME, "bare", f"{alone.rate:.1f} tokens/s")
            before = fleet.cpu_s()
            served = await measure_streams(_streams(run, fleet.address, requests))
            used = fleet.cpu_since(before) | {"client": served.cpu_s}
            alike = _alike(alone, served)
            run.say(
                NAME,
                f"service, round {number + 1}",
                f"{served.rate:.1f} tokens/s, ratio {served.rate / alone.rate:.3f}",
            )
            rounds.append({"bare": alone.rate, "service": served.rate, "alike": alike, "cpu_s": used})
            measured.append(served)
    return Part(
        name=NAME,
        title=f"Generation: {shape.callers} callers, prompts of {shape.prompt_tokens} tokens, "
        f"outputs of {shape.output_tokens[0]} to {shape.output_tokens[1]}, greedy",
        figures=_figures(rounds, measured),
        notes=(f"texts that are the bare runtime's to the last token: {median([r['alike'] for r in rounds]):.0%}",),
        data={"rounds": rounds},
    )


def _write(run: Run) -> Weights:
    folder = llama.write(run.repository(MODEL), MODEL)
    return Weights(folder=folder, vocabulary=llama.LLAMA.vocabulary_size)


def _streams(run: Run, address: str, requests: Requests) -> Streams:
    path = run.folder / "generate"
    blobs.write(path, workloads.messages(requests, MODEL))
    return Streams(address=address, requests=str(path), callers=requests.callers, channels=run.settings.channels)


def _alike(expected: Completions, found: Completions) -> float:
    if list(map(len, expected.token_ids)) != list(map(len, found.token_ids)):
        raise ValueError("the service's texts are not as long as the bare runtime's")
    alike = share_alike(expected, found)
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
