"""The model card: `README.md` beside the model's versions, `card_template.md` filled in with what was measured."""

from pathlib import Path

from examples.image.evaluate import CLASSES, Score
from examples.image.measure import Measures
from examples.image.model import BLOCKS, WIDTHS

CURVE_ROWS = 8
TEMPLATE = Path(__file__).with_name("card_template.md")


def write(measures: Measures, path: Path) -> None:
    """Write the card to `path`."""
    facts = measures.facts() | {"widths": " and ".join(map(str, WIDTHS)), "stages": len(WIDTHS), "blocks": BLOCKS}
    text = TEMPLATE.read_text().format(
        **facts,
        heads=" | ".join(map(str, range(CLASSES))),
        rulers="---:|" * CLASSES,
        scores=_scores(measures),
        confusion=_confusion(measures.score),
        classes=_classes(measures.score),
        curve=_curve(measures),
    )
    path.write_text(text)


def _scores(measures: Measures) -> str:
    rows = []
    for name, score in (("nearest neighbour", measures.neighbour), ("digits (shipped)", measures.score)):
        low, high = score.interval
        rows.append(f"| {name} | {score.accuracy:.2%} | {score.correct} of {score.images} | {low:.1%} to {high:.1%} |")
    return "\n".join(rows)


def _confusion(score: Score) -> str:
    rows = (" | ".join(str(count or "") for count in counts) for counts in score.confusion)
    return "\n".join(f"| **{digit}** | {row} |" for digit, row in enumerate(rows))


def _classes(score: Score) -> str:
    images = (sum(row) for row in score.confusion)
    rows = zip(images, score.precision, score.recall, strict=True)
    return "\n".join(
        f"| {digit} | {count} | {precision:.1%} | {recall:.1%} |"
        for digit, (count, precision, recall) in enumerate(rows)
    )


def _curve(measures: Measures) -> str:
    curve = measures.history["curve"]
    every = -(-len(curve) // CURVE_ROWS)
    return "\n".join(
        f"| {step:,} | {loss:.3f} | {validation_loss:.3f} | {accuracy:.1%} |"
        for step, loss, validation_loss, accuracy in reversed(curve[::-1][::every])
    )
