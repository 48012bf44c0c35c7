"""The model card: `README.md` beside the model's versions, `card_template.md` filled in with what was measured."""

from pathlib import Path
from typing import Any

from examples import record
from examples.text.classifier.data import LABELS
from examples.text.classifier.tokens import MOST_TOKENS, VOCABULARY_SIZE

CURVE_ROWS = 8
TEMPLATE = Path(__file__).with_name("card_template.md")
MEASURED = ("snippets", "recipe", "alone", "candidates", "served")


def write(measures: dict[str, Any], path: Path) -> None:
    """Write the card to `path`. Raises FileNotFoundError where a part that measures has not been run."""
    record.complete(measures, *MEASURED)
    path.write_text(
        TEMPLATE.read_text().format(
            **measures["snippets"],
            **measures["recipe"],
            **measures["run"],
            **measures["speed"],
            python=measures["python"],
            files=measures["files"],
            weights=measures["weights"],
            difference=measures["difference"],
            vocabulary=VOCABULARY_SIZE,
            most_tokens=MOST_TOKENS,
            labels=", ".join(LABELS),
            heads=" | ".join(LABELS),
            rulers="---:|" * len(LABELS),
            scores=_scores(measures),
            confusion=_confusion(measures["alone"]["confusion"]),
            candidates="\n".join(measures["candidates"]),
            curve=_curve(measures["curve"]),
        )
    )


def _scores(measures: dict[str, Any]) -> str:
    rows = [("naive Bayes over the same tokens", measures["baseline"]), ("origin, version 1", measures["alone"])]
    for one in measures["served"]:
        beside = f", {one['verdict']} beside version 1" if one["verdict"] else ""
        rows.append((f"the service, version {one['version']}{beside}", one))
    return "\n".join(f"| {name} | {found['accuracy']:.2%} | {found['f1']:.4f} |" for name, found in rows)


def _confusion(confusion: list[list[int]]) -> str:
    rows = (" | ".join(str(count or "") for count in counts) for counts in confusion)
    return "\n".join(f"| **{label}** | {row} |" for label, row in zip(LABELS, rows, strict=True))


def _curve(curve: list[dict[str, float]]) -> str:
    every = -(-len(curve) // CURVE_ROWS)
    return "\n".join(
        f"| {point['step']:,} | {point['loss']:.3f} | {point['validation_loss']:.3f} | {point['accuracy']:.1%} |"
        for point in reversed(curve[::-1][::every])
    )
