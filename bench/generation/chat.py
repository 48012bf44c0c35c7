"""The chat: prompts that begin alike, arriving as they please."""

from collections.abc import Sequence
from dataclasses import replace

from bench.completions import Completions
from bench.generation import workloads
from bench.generation.closed import WARM_NUMBER
from bench.generation.contestants import CHAT, FP32, SERVICE
from bench.generation.judge import Results, column, first_ms, per_token_ms, rate
from bench.generation.match import Match
from bench.generation.stage import Contestant, Stage
from bench.report import Comparison, Part
from bench.run import median

GOOD_FIRST_MS, GOOD_TOKEN_MS = 1000.0, 150.0
"""A good answer's first token comes within the one, each further one on average within the other."""
SATURATING = WARM_NUMBER + 1
FEW_TOKENS = (2, 6)


async def run(match: Match) -> Part:
    settings, vocabulary = match.settings, match.weights.vocabulary
    few = replace(settings, chat_requests=settings.callers, output_tokens=FEW_TOKENS)
    async with match.stage(CHAT, match.servers, workloads.chat(few, vocabulary, WARM_NUMBER)) as stage:
        requests_s = await _rate(match, stage)
        for number in range(settings.rounds if requests_s else 0):
            await stage.round(number, workloads.chat(settings, vocabulary, number, requests_s))
    results = Results(stage)
    columns = {
        "tokens/s": column(rate),
        "of vLLM's": results.of_vllm,
        "first token p50 / p99, ms": column(first_ms(50), first_ms(99)),
        "each further p50 / p99, ms": column(per_token_ms(50), per_token_ms(99)),
        "good": _good,
        "prefix cached": lambda who, rounds: _cached(rounds, match),
        "texts alike": results.alike,
    }
    rows = results.rows(list(columns.values()))
    return Part(
        name=CHAT,
        title=f"Chat: {settings.chat_requests} prompts of {settings.chat_prefix_tokens} tokens alike and "
        f"{_span(settings.chat_own_tokens)} of their own, outputs of {_span(settings.output_tokens)}, "
        f"{requests_s:.2f} arrivals a second",
        beside="vLLM",
        figures=tuple(results.first_tokens()),
        notes=(
            f"good: first token within {GOOD_FIRST_MS:.0f} ms, further ones within {GOOD_TOKEN_MS:.0f} ms on average. "
            "Prefix cached: of the tokens alike. The first prompt of a round is new to everybody.",
            *results.notes(),
        ),
        comparison=Comparison(title="Who", columns=("", "precision", *columns), rows=tuple(rows)),
        data={"table": rows, "requests_s": requests_s, "rounds": results.data()},
    )


async def _rate(match: Match, stage: Stage) -> float:
    """Arrivals a second, the same for all: a share of what the service answers in a closed loop with the stored
    weights, or else of what another does. 0 where nobody is there."""
    settings = match.settings
    if settings.chat_rate:
        return settings.chat_rate
    order = sorted(stage.present, key=lambda each: (each.name, each.precision) != (SERVICE, FP32))
    for contestant in order:
        requests = workloads.chat(settings, match.weights.vocabulary, SATURATING)
        if found := await stage.ask(contestant, requests):
            saturation = len(requests) / found.seconds
            stage.progress.say(CHAT, f"closed loop: {contestant}", f"{saturation:.2f} requests/s")
            return settings.chat_load * saturation
    return 0.0


def _good(contestant: Contestant, rounds: Sequence[Completions]) -> str:
    shares = [
        sum(
            first <= GOOD_FIRST_MS and token <= GOOD_TOKEN_MS
            for first, token in zip(found.first_ms, found.per_token_ms, strict=True)
        )
        / len(found.sent_s)
        for found in rounds
    ]
    return f"{median(shares):.0%}"


def _cached(rounds: Sequence[Completions], match: Match) -> str:
    alike = match.settings.chat_prefix_tokens
    shares = [
        sum(min(cached, alike) for cached in found.cached_tokens) / (alike * max(len(found.sent_s), 1))
        for found in rounds
    ]
    return f"{median(shares):.0%}"


def _span(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]} to {bounds[1]}"
