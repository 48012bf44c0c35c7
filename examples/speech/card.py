"""The model card: `README.md` beside the model's versions, `card_template.md` filled in with what was measured."""

from pathlib import Path
from typing import Any

from examples import record
from examples.speech import voices
from examples.speech.model import BLOCKS, WIDTH
from examples.speech.voices import Part

CURVE_ROWS = 8
TEMPLATE = Path(__file__).with_name("card_template.md")


def write(measures: dict[str, Any], path: Path) -> None:
    """Write the card to `path`. Raises FileNotFoundError where a part that measures has not been run."""
    record.complete(measures, "training", "offline", "candidates", "served")
    training = measures["training"]
    text = TEMPLATE.read_text().format(
        **training["recipe"],
        **training["speed"],
        **training["corpus"],
        weights=training["weights"],
        seconds=training["seconds"],
        processes=training["processes"],
        threads=training["threads"],
        difference=measures["difference"],
        sounds=measures["offline"]["all"]["sounds"],
        width=WIDTH,
        blocks=BLOCKS,
        speakers=len(voices.SPEAKERS[Part.TRAIN]),
        held_out_speakers=len(voices.SPEAKERS[Part.HELD_OUT]),
        scores=_scores(measures),
        candidates="\n".join(measures["candidates"]),
        curve=_curve(training["curve"]),
    )
    path.write_text(text)


def _scores(measures: dict[str, Any]) -> str:
    rows = [("ONNX Runtime, version 1", measures["offline"], None)]
    rows += [(f"the service, version {one['version']}", one["scores"], one["equal"]) for one in measures["served"]]
    return "\n".join(_row(*row) for row in rows)


def _row(name: str, scores: dict[str, Any], equal: int | None) -> str:
    everything = scores["all"]
    low, high = everything["interval"]
    bounds = f"{low:.2%} to {high:.2%}"
    kinds = " / ".join(str(everything[kind]) for kind in ("substitutions", "deletions", "insertions"))
    rates = " | ".join(f"{scores[condition]['wer']:.2%}" for condition in ("all", "clean", "noisy"))
    same = "" if equal is None else f"{equal} of {everything['sounds']}"
    return f"| {name} | {rates} | {bounds} | {kinds} | {same} |"


def _curve(curve: list[dict[str, float]]) -> str:
    every = -(-len(curve) // CURVE_ROWS)
    return "\n".join(
        f"| {point['step']:,} | {point['loss']:.3f} | {point['validation_loss']:.3f} | {point['wer']:.1%} |"
        for point in reversed(curve[::-1][::every])
    )
