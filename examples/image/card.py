"""The model card: `README.md` beside the model's versions, `card_template.md` filled in with what was measured."""

from pathlib import Path
from typing import Any

from examples import record
from examples.image.evaluate import CLASSES, Score
from examples.image.model import BLOCKS, WIDTHS
from examples.image.train import LABEL_SMOOTHING

CURVE_ROWS = 8
TEMPLATE = Path(__file__).with_name("card_template.md")


def write(measures: dict[str, Any], path: Path) -> None:
    """Write the card to `path`. Raises FileNotFoundError where a part that measures has not been run."""
    record.complete(measures, "training", "graph", "optimised", "served")
    training, graph = measures["training"], measures["graph"]
    recipe, images = training["recipe"], graph["images"]
    score = Score(**graph["score"])
    text = TEMPLATE.read_text().format(
        **recipe,
        **images,
        **training["speed"],
        **{key: graph[key] for key in ("confidence", "opset", "ir_version", "scikit_learn")},
        label_smoothing=LABEL_SMOOTHING,
        weights=measures["weights"],
        seconds=training["seconds"],
        processes=training["processes"],
        threads=training["threads"],
        epochs=recipe["steps"] * recipe["batch"] / images["train"],
        difference=measures["difference"],
        drift=f"to {graph['drift']:.1e}" if graph["drift"] else "bit for bit",
        image_share=1 / score.images,
        size_mb=graph["size_bytes"] / 1e6,
        widths=" and ".join(map(str, WIDTHS)),
        stages=len(WIDTHS),
        blocks=BLOCKS,
        heads=" | ".join(map(str, range(CLASSES))),
        rulers="---:|" * CLASSES,
        scores=_scores(measures),
        confusion=_confusion(score),
        classes=_classes(score),
        candidates="\n".join(measures["optimised"]),
        curve=_curve(training["curve"]),
    )
    path.write_text(text)


def _scores(measures: dict[str, Any]) -> str:
    graph = measures["graph"]
    found = [("nearest neighbour", graph["neighbour"]), ("digits (shipped)", graph["score"])]
    found += [(f"the service, version {one['version']}, {one['graph']}", one["score"]) for one in measures["served"]]
    return "\n".join(_row(name, Score(**score)) for name, score in found)


def _row(name: str, score: Score) -> str:
    low, high = score.interval
    return f"| {name} | {score.accuracy:.2%} | {score.correct} of {score.images} | {low:.1%} to {high:.1%} |"


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


def _curve(curve: list[dict[str, float]]) -> str:
    every = -(-len(curve) // CURVE_ROWS)
    return "\n".join(
        f"| {point['step']:,} | {point['loss']:.3f} | {point['validation_loss']:.3f} | {point['accuracy']:.1%} |"
        for point in reversed(curve[::-1][::every])
    )
