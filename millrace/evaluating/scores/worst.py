"""The examples that went worst, as a reader wants to see them."""

import base64
import io
from collections.abc import Sequence
from heapq import nlargest
from pathlib import Path

import jiwer
import numpy as np
from PIL import Image

from millrace.evaluating.asking import Answer
from millrace.evaluating.data import Example
from millrace.evaluating.data.example import Array
from millrace.evaluating.kinds import Kind
from millrace.evaluating.result import Shown
from millrace.evaluating.scores.classification import Classification
from millrace.evaluating.scores.retrieval import find
from millrace.evaluating.scores.texts import counts

Pair = tuple[Example, Answer]
MOST = 24
MOST_CHARACTERS = 240
SIDE = 72
"""Of thumbnails, in pixels."""
MOST_FILE_BYTES = 32 << 20
MOST_PIXELS = 64_000_000


def worst(kind: Kind, answered: Sequence[Pair]) -> list[Shown]:
    """At most `MOST`, the worst first."""
    if kind in ("classify", "infer"):
        return _labels(answered)
    if kind == "generate":
        wrong = [pair for pair in answered if pair[0].truth.strip() != (pair[1].text or "").strip()]
        return [_shown(example, answer.text or "") for example, answer in wrong[:MOST]]
    if kind == "perplexity":
        dearest = nlargest(MOST, answered, key=lambda one: (one[1].nats or 0.0) / (one[1].tokens or 1))
        return [_shown(example, "", f"perplexity {_perplexity(answer):,.3g}") for example, answer in dearest]
    if kind == "transcribe":
        return _transcripts(answered)
    return _searches(answered)


def _labels(answered: Sequence[Pair]) -> list[Shown]:
    """Wrong ones first, then those whose right label was least likely."""
    scorer = Classification([example.truth for example, _ in answered], [answer for _, answer in answered])
    order = sorted(range(len(answered)), key=lambda place: (scorer.is_right[place], -scorer.loss[place]))
    chosen = [place for place in order if scorer.has_scores or not scorer.is_right[place]][:MOST]
    return [_labelled(*answered[place]) for place in chosen]


def _labelled(example: Example, answer: Answer) -> Shown:
    scores = answer.scores or {}
    remark = f"p of the right one {scores.get(example.truth, 0.0):.3g}" if scores else ""
    return _shown(example, answer.label or "", remark)


def _transcripts(answered: Sequence[Pair]) -> list[Shown]:
    errors = [counts(jiwer.process_words(example.truth, answer.text or "")) for example, answer in answered]
    places = nlargest(MOST, range(len(answered)), key=lambda place: errors[place][0] / errors[place][1])
    return [
        _shown(answered[place][0], answered[place][1].text or "", f"{errors[place][0]} of {errors[place][1]} words")
        for place in places
        if errors[place][0]
    ]


def _searches(answered: Sequence[Pair]) -> list[Shown]:
    queries = [one for one in answered if one[0].relevant is not None]
    documents = [one for one in answered if one[0].relevant is None]
    texts = {example.id: example.text for example, _ in documents}
    found = [*zip(queries, find(queries, documents), strict=True)]
    return [
        _shown(
            Example(id=query.id, text=query.text, truth=", ".join(query.relevant or ())),
            f"{one.documents[0]}: {texts[one.documents[0]]}",
            f"nDCG@10 {one.ndcg:.3g}",
        )
        for (query, _), one in sorted(found, key=lambda pair: pair[1].ndcg)[:MOST]
        if one.ndcg < 1
    ]


def _perplexity(answer: Answer) -> float:
    return float(np.exp((answer.nats or 0.0) / (answer.tokens or 1)))


def _shown(example: Example, answer: str, remark: str = "") -> Shown:
    return Shown(
        id=example.id,
        truth=_cut(example.truth),
        answer=_cut(answer),
        remark=remark,
        excerpt=_cut(example.text),
        thumbnail=_thumbnail(example),
    )


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"


def _thumbnail(example: Example) -> str | None:
    """PNG, base64; None for what is no image, or cannot be shown as one."""
    if example.medium == "image" and example.file is not None:
        return _of_file(example.file)
    pictures = [picture for array in example.arrays.values() if (picture := _picture(array)) is not None]
    return _png(pictures[0]) if len(pictures) == 1 else None


def _of_file(path: Path) -> str | None:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            return None
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            image.draft("RGB", (SIDE, SIDE))
            return _png(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _picture(array: Array) -> Image.Image | None:
    """Of numbers [height, width], or with 1 or 3 channels before or after; its least is black, its greatest white."""
    values = array.astype(np.float64) if array.dtype.kind in "biuf" else np.empty(0)
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if not (values.ndim == 2 or values.shape[2:] == (3,)) or min(values.shape[:2], default=0) < 4:
        return None
    span = float(np.ptp(values))
    if not np.isfinite(span):
        return None
    grey = ((values - values.min()) / (span or 1.0) * 255).round().astype(np.uint8)
    return Image.fromarray(grey)


def _png(image: Image.Image) -> str:
    side = max(image.size)
    if side > SIDE:
        image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
