"""From what was measured to figures with aims, and to rows of a table."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.completions import Completions
from bench.generation.contestants import BARE_NAME, FP32, SERVICE, VLLM_NAME
from bench.generation.stage import Contestant, Stage, share_alike
from bench.report import Figure, write_number
from bench.run import median, percentile

BF16 = "bf16"
Metric = Callable[[Completions], float]


def rate(found: Completions) -> float:
    return found.rate


def first_ms(percent: float) -> Metric:
    return lambda found: percentile(found.first_ms, percent)


def per_token_ms(percent: float) -> Metric:
    return lambda found: percentile(found.per_token_ms, percent)


class Results:
    """A stage when all rounds are over."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._by_name = {(each.name, each.precision): rounds for each, rounds in stage.measured.items()}

    def of(self, name: str, precision: str) -> Sequence[Completions]:
        """One for each round; none where it did not take part, or is out."""
        return self._by_name.get((name, precision), ())

    def service(self, precision: str, metric: Metric) -> float:
        """The median over the rounds."""
        return median([metric(found) for found in self.of(SERVICE, precision)])

    def data(self) -> dict[str, list[dict[str, Any]]]:
        """All that was measured but the texts."""
        return {
            f"{name}, {precision}": [_data(found) for found in rounds]
            for (name, precision), rounds in self._by_name.items()
        }

    def rival(self, precision: str) -> Sequence[Completions]:
        """vLLM with as many bits, or as few as it has."""
        return self.of(VLLM_NAME, precision if precision == FP32 else BF16)

    def precisions(self) -> list[str]:
        """The service's."""
        return [precision for name, precision in self._by_name if name == SERVICE]

    def figure(
        self,
        name: str,
        metric: Metric,
        unit: str,
        precision: str,
        other: Sequence[Completions],
        aim: float | None,
        *,
        less: bool = False,
    ) -> list[Figure]:
        """The service beside another; nothing where either is missing."""
        served = self.of(SERVICE, precision)
        if not served or not other:
            return []
        return [
            Figure(
                name=name,
                value=median([metric(found) for found in served]),
                unit=unit,
                bare=median([metric(found) for found in other]),
                ratios=ratios(metric, served, other),
                aim=aim,
                better="less" if less else "more",
            )
        ]

    def first_tokens(self) -> list[Figure]:
        """Beside vLLM's: no later."""
        return [
            figure
            for precision in self.precisions()
            for percent in (50, 99)
            for figure in self.figure(
                f"{precision}: first token p{percent}, beside vLLM",
                first_ms(percent),
                "ms",
                precision,
                self.rival(precision),
                1.0,
                less=True,
            )
        ]

    def rows(self, columns: Sequence[Callable[[Contestant, Sequence[Completions]], str]]) -> list[tuple[str, ...]]:
        """Name, precision and the columns; behind them who is out."""
        present = [
            (each.name, each.precision, *(column(each, rounds) for column in columns))
            for each, rounds in self._stage.measured.items()
        ]
        return [*present, *((each.name, each.precision, "out") for each in self._stage.failures)]

    def notes(self) -> list[str]:
        """Why who is out."""
        return [f"{each}: out: {reason}" for each, reason in self._stage.failures.items()]

    def of_bare(self, contestant: Contestant, rounds: Sequence[Completions]) -> str:
        return _ratio(rounds, self.of(BARE_NAME, FP32))

    def of_vllm(self, contestant: Contestant, rounds: Sequence[Completions]) -> str:
        return _ratio(rounds, self.rival(contestant.precision))

    def alike(self, contestant: Contestant, rounds: Sequence[Completions]) -> str:
        shares = self.shares_alike(rounds)
        return f"{median(shares):.0%}" if shares else ""

    def shares_alike(self, rounds: Sequence[Completions]) -> list[float]:
        """Of the texts, how many are the bare loop's, or, where there is none, the service's with stored weights."""
        expected = self.of(BARE_NAME, FP32) or self.of(SERVICE, FP32)
        return [share_alike(*pair) for pair in zip(expected, rounds, strict=True)] if expected and rounds else []


def _data(found: Completions) -> dict[str, Any]:
    return {
        "seconds": round(found.seconds, 3),
        "tokens": found.tokens,
        "sent_s": [round(at, 4) for at in found.sent_s],
        "times_s": [" ".join(f"{at:.4f}" for at in times) for times in found.times_s],
        "cached_tokens": found.cached_tokens,
    }


def ratios(metric: Metric, one: Sequence[Completions], other: Sequence[Completions]) -> tuple[float, ...]:
    """Of each round."""
    return tuple(metric(a) / metric(b) for a, b in zip(one, other, strict=True))


def column(metric: Metric, *further: Metric) -> Callable[[Contestant, Sequence[Completions]], str]:
    """The medians over the rounds."""

    def write(contestant: Contestant, rounds: Sequence[Completions]) -> str:
        return " / ".join(write_number(median([each(found) for found in rounds])) for each in (metric, *further))

    return write


def _ratio(one: Sequence[Completions], other: Sequence[Completions]) -> str:
    return f"{median(ratios(rate, one, other)):.2f}" if one and other else ""
