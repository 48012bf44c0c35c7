"""The closed loop: callers that send their next request when the last one's text has ended."""

from dataclasses import replace

from bench.generation import workloads
from bench.generation.contestants import BARE_NAME, CLOSED, FP32, GENAI_NAME, SERVICE
from bench.generation.judge import BF16, Results, column, first_ms, per_token_ms, rate
from bench.generation.match import Match
from bench.report import Comparison, Figure, Part
from bench.run import median

AIM_BARE, AIM_GENAI, AIM_VLLM, AIM_VLLM_BF16 = 0.95, 1.15, 1.45, 1.2
AIM_ALIKE = 90.0
"""A near tie may fall the other way."""
WARM_NUMBER = 1 << 20
"""Of a round that does not count."""
UNIT = "tokens/s"
EARLIER = (
    ("llama.cpp", "q8_0", 179),
    ("CTranslate2", "int8", 261),
    ("CTranslate2", "fp32", 187),
    ("onnxruntime-genai's Engine", "fp32", 174),
    ("transformers", "fp32", "80 to 150"),
)
"""Output tokens a second of this loop, on 2 such cores, in another run."""


async def run(match: Match) -> Part:
    settings, vocabulary = match.settings, match.weights.vocabulary
    few = replace(settings, requests=settings.callers, output_tokens=(2, 6))
    async with match.stage(CLOSED, match.contestants, workloads.closed(few, vocabulary, WARM_NUMBER)) as stage:
        for number in range(settings.rounds):
            await stage.round(number, workloads.closed(settings, vocabulary, number))
    results = Results(stage)
    columns = {
        UNIT: column(rate),
        "of bare": results.of_bare,
        "of vLLM's": results.of_vllm,
        "first token p50 / p99, ms": column(first_ms(50), first_ms(99)),
        "each further p50 / p99, ms": column(per_token_ms(50), per_token_ms(99)),
        "texts alike": results.alike,
    }
    rows = results.rows(list(columns.values()))
    rows += [(name, precision, str(speed), "another run") for name, precision, speed in EARLIER]
    least, most = settings.output_tokens
    return Part(
        name=CLOSED,
        title=f"Closed loop: {settings.callers} callers, {settings.requests} requests, prompts of "
        f"{settings.prompt_tokens} tokens, outputs of {least} to {most}, greedy",
        beside="other",
        figures=tuple(_speeds(results) + results.first_tokens()),
        notes=(
            "of vLLM's: its fp32 beside fp32, its bf16 beside fewer bits; alike: the bare loop's to the last token",
            "onnxruntime-genai: static batches sorted by the length of their outputs, which nobody who serves knows",
            *results.notes(),
        ),
        comparison=Comparison(title="Who", columns=("", "precision", *columns), rows=tuple(rows)),
        data={"table": rows, "rounds": results.data()},
    )


def _speeds(results: Results) -> list[Figure]:
    figures = [
        *results.figure("fp32, beside the bare loop", rate, UNIT, FP32, results.of(BARE_NAME, FP32), AIM_BARE),
        *results.figure("fp32, beside genai's Generator", rate, UNIT, FP32, results.of(GENAI_NAME, FP32), AIM_GENAI),
        *results.figure("fp32, beside vLLM's", rate, UNIT, FP32, results.rival(FP32), AIM_VLLM),
    ]
    if alike := results.shares_alike(results.of(SERVICE, FP32)):
        value = 100 * median(alike)
        figures.append(Figure(name="fp32: texts that are the bare loop's", value=value, unit="%", aim=AIM_ALIKE))
    for precision in results.precisions():
        if precision != FP32:
            name = f"{precision}, beside vLLM's {BF16}"
            figures += results.figure(name, rate, UNIT, precision, results.rival(precision), AIM_VLLM_BF16)
    return figures
