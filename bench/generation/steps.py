"""The engine's own share of a step."""

from dataclasses import asdict, replace

from bench.children import MeasurementFailed, measure_steps
from bench.generation import models, workloads
from bench.generation.contestants import FP32, STORED
from bench.generation.match import Match
from bench.generation.overhead import Measured, Steps
from bench.report import Comparison, Figure, Part
from bench.run import median

NAME = "steps"
AIM = 5.0
PROMPT_TOKENS = 32
SERVED = {"context_length": 256}


async def run(match: Match) -> Part:
    measured, failures = dict[str, Measured](), list[tuple[str, ...]]()
    for stored in match.precisions:
        precision = FP32 if stored == STORED else stored
        try:
            measured[precision] = await _measure(match, stored)
        except (MeasurementFailed, ValueError) as error:
            failures.append((precision, f"out: {error}"))
        else:
            match.progress.say(NAME, precision, f"{100 * measured[precision].share:.1f} % besides the model")
    rows = [_row(precision, found) for precision, found in measured.items()]
    return Part(
        name=NAME,
        title=f"A step of {match.settings.step_rows} rows that decode, in one process",
        figures=tuple(
            Figure(name=f"{precision}: all but the model", value=100 * found.share, unit="%", aim=AIM, better="less")
            for precision, found in measured.items()
        ),
        comparison=Comparison(
            title="Where a step's time goes",
            columns=("", "step, ms", "model, ms", "sampler, ms", "the rest, ms", "results, beside it, ms"),
            rows=(*rows, *failures),
        ),
        data={precision: asdict(found) for precision, found in measured.items()},
    )


async def _measure(match: Match, stored: str) -> Measured:
    settings = match.settings
    described = SERVED | {"slots": settings.step_rows} | ({} if stored == STORED else {"weights": stored})
    served = models.write_served(match.weights, match.places.served(stored), described | match.changes)
    asked = replace(settings, requests=settings.step_rows, prompt_tokens=PROMPT_TOKENS, output_tokens=(200, 200))
    requests = workloads.closed(asked, match.weights.vocabulary, 0)
    _, *messages = workloads.messages(requests, models.NAME)
    spec = Steps(
        models=str(served),
        requests=[message.hex() for message in messages],
        steps=settings.steps,
        threads=settings.cores,
    )
    return await measure_steps(spec)


def _row(precision: str, found: Measured) -> tuple[str, ...]:
    rest = [
        step - model - sampler
        for step, model, sampler in zip(found.step_ms, found.model_ms, found.sampler_ms, strict=True)
    ]
    columns = (found.step_ms, found.model_ms, found.sampler_ms, rest, found.results_ms)
    return precision, *(f"{median(values):.2f}" for values in columns)
