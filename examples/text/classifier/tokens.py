"""Snippets as tokens: byte-level BPE that is learned from the training part only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.text import tokenizer
from examples.text.classifier.data import LABELS
from examples.text.data import Document

VOCABULARY_SIZE = 2_048
MOST_TOKENS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Snippets as tokens, as many as they have, and the indices of their labels."""

    ids: Sequence[Sequence[int]]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)


def learn(texts: Sequence[str]) -> Any:
    """A tokenizer of `VOCABULARY_SIZE` entries."""
    return tokenizer.learn([Document(path="", text=text) for text in texts], VOCABULARY_SIZE)


def encode(words: Any, rows: Sequence[tuple[str, str]]) -> Encoded:
    """Of texts and their labels."""
    ids = [encoding.ids for encoding in words.encode_batch([text for text, _ in rows], add_special_tokens=False)]
    return Encoded(ids=ids, labels=[LABELS.index(label) for _, label in rows])
