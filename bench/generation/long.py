"""Long prompts that arrive while streams run: how much the streams stutter."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import nan

from bench.completions import Completions
from bench.generation import workloads
from bench.generation.closed import WARM_NUMBER
from bench.generation.contestants import LONG
from bench.generation.judge import Metric, Results, column
from bench.generation.match import Match
from bench.generation.settings import Settings
from bench.report import Comparison, Figure, Part
from bench.run import median, percentile

AIM = 2.0


@dataclass(frozen=True, slots=True)
class Gaps:
    """Between the messages of the streams that run."""

    settings: Settings

    def quiet_ms(self, found: Completions) -> list[float]:
        """After all of them have begun, and before the first long prompt."""
        since = max(times[0] for times in found.times_s[: self.settings.running_streams])
        return self._between(found, since, self.settings.long_after_s)

    def long_ms(self, found: Completions) -> list[float]:
        """From the first long prompt until the last one's first token."""
        until = max(times[0] for times in found.times_s[self.settings.running_streams :])
        return self._between(found, self.settings.long_after_s, until)

    def _between(self, found: Completions, since: float, until: float) -> list[float]:
        return [
            1000 * (after - before)
            for times in found.times_s[: self.settings.running_streams]
            for before, after in pairwise(times)
            if before >= since and after <= until
        ]

    def quiet(self, found: Completions) -> float:
        """p50; not a number where no stream ran meanwhile."""
        return percentile(self.quiet_ms(found) or [nan], 50)

    def percentile(self, percent: float) -> Metric:
        """The same, among long prompts."""
        return lambda found: percentile(self.long_ms(found) or [nan], percent)

    def stutter(self, found: Completions) -> float:
        """p99 ÷ p50."""
        return self.percentile(99)(found) / self.percentile(50)(found)

    def first_ms(self, percent: float) -> Metric:
        """Of the long prompts."""
        return lambda found: percentile(found.first_ms[self.settings.running_streams :], percent)


async def run(match: Match) -> Part:
    settings, vocabulary = match.settings, match.weights.vocabulary
    warm = replace(settings, running_tokens=8, long_prompts=1, long_after_s=0.5, long_output_tokens=2)
    async with match.stage(LONG, match.servers, workloads.long_prompts(warm, vocabulary, WARM_NUMBER)) as stage:
        for number in range(settings.long_rounds):
            await stage.round(number, workloads.long_prompts(settings, vocabulary, number))
    results, gaps = Results(stage), Gaps(settings)
    columns = {
        "quiet p50, ms": column(gaps.quiet),
        "p50 / p99, ms": column(gaps.percentile(50), gaps.percentile(99)),
        "p99 ÷ p50": column(gaps.stutter),
        "worst, ms": column(gaps.percentile(100)),
        "long prompt's first token p50 / p99, ms": column(gaps.first_ms(50), gaps.first_ms(99)),
    }
    rows = results.rows(list(columns.values()))
    return Part(
        name=LONG,
        title=f"{settings.running_streams} streams, while {settings.long_prompts} prompts of "
        f"{settings.long_prompt_tokens} tokens come, one each {settings.long_every_s:g} s: between tokens",
        beside="vLLM",
        figures=tuple(_figure(results, precision, gaps) for precision in results.precisions()),
        notes=("quiet: before the first long prompt", *results.notes()),
        comparison=Comparison(title="Who", columns=("", "precision", *columns), rows=tuple(rows)),
        data={"table": rows, "rounds": results.data()},
    )


def _figure(results: Results, precision: str, gaps: Gaps) -> Figure:
    rival = results.rival(precision)
    return Figure(
        name=f"{precision}: p99 ÷ p50",
        value=results.service(precision, gaps.stutter),
        unit="",
        bare=median([gaps.stutter(found) for found in rival]) if rival else None,
        aim=AIM,
        better="less",
    )
