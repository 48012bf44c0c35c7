"""Completions, transcripts and the cost of texts."""

import math
from collections.abc import Sequence

import jiwer
import numpy as np

from millrace.evaluating.asking import Answer
from millrace.evaluating.scores.scorer import Array, Ratios

NATS_PER_BIT = math.log(2)


def exact_match(truths: Sequence[str], answers: Sequence[Answer]) -> Ratios:
    """The share of completions that are the reference, spaces around them aside."""
    same = np.array(
        [truth.strip() == (answer.text or "").strip() for truth, answer in zip(truths, answers, strict=True)]
    )
    parts = {"exact_match": (same.astype(np.float64), np.ones(len(same)))}
    return Ratios(parts, {"exact_match": float(same.mean())}, proportions=frozenset(parts))


def cost(answers: Sequence[Answer]) -> Ratios:
    """Perplexity: e to the mean cost of a token in nats. Bits per byte: the same cost for each byte of the text, which
    models with different vocabularies can be compared by."""
    nats, tokens, size = (
        np.array([getattr(answer, name) for answer in answers], np.float64) for name in ("nats", "tokens", "bytes")
    )
    point = {
        "perplexity": math.exp(nats.sum() / tokens.sum()),
        "bits_per_byte": float(nats.sum() / NATS_PER_BIT / size.sum()),
    }
    parts = {"perplexity": (nats, tokens), "bits_per_byte": (nats / NATS_PER_BIT, size)}
    return Ratios(parts, point, lower_is_better=frozenset(parts), exponential=frozenset({"perplexity"}))


def transcripts(truths: Sequence[str], answers: Sequence[Answer]) -> Ratios:
    """Word and character error rates, as written: letters' cases and punctuation count."""
    heard = [answer.text or "" for answer in answers]
    words = [counts(jiwer.process_words(truth, text)) for truth, text in zip(truths, heard, strict=True)]
    letters = [counts(jiwer.process_characters(truth, text)) for truth, text in zip(truths, heard, strict=True)]
    point = {"wer": float(jiwer.wer(list(truths), heard)), "cer": float(jiwer.cer(list(truths), heard))}
    return Ratios({"wer": _columns(words), "cer": _columns(letters)}, point, lower_is_better=frozenset(point))


def counts(found: jiwer.WordOutput | jiwer.CharacterOutput) -> tuple[int, int]:
    """What was substituted, deleted or inserted; what there was to be heard."""
    errors = found.substitutions + found.deletions
    return errors + found.insertions, errors + found.hits


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    columns = np.array(pairs, np.float64)
    return columns[:, 0], columns[:, 1]
