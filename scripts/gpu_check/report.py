"""What was measured: a table for people, JSON for machines."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.gpu_check.roofline import Card, Work
from scripts.gpu_check.speed import Overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A kind of run, how long it takes, and what it cannot do without."""

    kind: str
    """"decode", "decode, captured" or "prefill"."""
    rows: int
    seconds: float
    work: Work

    @property
    def tokens_s(self) -> float:
        return self.work.tokens / self.seconds

    def share(self, card: Card | None) -> float | None:
        """Of what the card could do: of its bandwidth where it decodes, else of its arithmetic."""
        if card is None:
            return None
        of = self.work.compute_share if self.kind == "prefill" else self.work.bandwidth_share
        return of(self.seconds, card)


@dataclass(slots=True, kw_only=True)
class Measured:
    """Of one model in one dialect."""

    size: str
    dialect: str
    runs: list[Run] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    overhead: Overhead | None = None
    weights_bytes: int = 0
    sequences_bytes: int = 0
    """Of KV memory and logits, as the decoder allocated them."""
    used_bytes: int | None = None
    """Of the card's memory, with the model loaded; None where the driver's tool is not there."""


@dataclass(slots=True, kw_only=True)
class Report:
    device: str
    card: Card | None
    agreement: dict[str, float] = field(default_factory=dict)
    """By dialect: the largest difference from the CPU's logits, in their standard deviations."""
    models: list[Measured] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As it goes into JSON."""
        plain = asdict(self)
        for model, measured in zip(plain["models"], self.models, strict=True):
            for run, each in zip(model["runs"], measured.runs, strict=True):
                run |= {"tokens_s": each.tokens_s, "share": each.share(self.card)}
            if measured.overhead is not None:
                model["overhead"]["share"] = measured.overhead.share
        return plain

    def show(self, console: Console) -> None:
        console.print(f"{self.device}; shares are of {_peaks(self.card)}")
        for dialect, difference in self.agreement.items():
            console.print(f"{dialect}: logits differ from the CPU's by {difference:.3f} standard deviations at most")
        table = Table("model", "dialect", "run", "sequences", "tokens/s", "ms", "share")
        for measured in self.models:
            for run in measured.runs:
                share = run.share(self.card)
                table.add_row(
                    *(measured.size, measured.dialect, run.kind, str(run.rows)),
                    *(f"{run.tokens_s:,.0f}", f"{run.seconds * 1e3:.2f}", "" if share is None else f"{share:.0%}"),
                )
        console.print(table)
        for measured in self.models:
            for line in _lines(measured):
                console.print(f"{measured.size} {measured.dialect}: {line}")


def _lines(measured: Measured) -> list[str]:
    lines = list(measured.missing)
    if measured.overhead is not None:
        step, share = measured.overhead.step_s * 1e3, measured.overhead.share
        lines.append(f"{share:.1%} of an engine's step of {step:.2f} ms is not the model's run")
    used = "" if measured.used_bytes is None else f"; {measured.used_bytes / 1e9:.1f} GB of the card are in use"
    weights, sequences = measured.weights_bytes / 1e9, measured.sequences_bytes / 1e9
    lines.append(f"{weights:.1f} GB of weights, {sequences:.1f} GB for sequences{used}")
    return lines


def _peaks(card: Card | None) -> str:
    if card is None:
        return "nothing, for its peaks are not known (--bandwidth, --flops)"
    return f"{card.bytes_s / 1e12:.2f} TB/s (decode) and {card.flops_s / 1e12:.0f} TFLOP/s (prefill)"
