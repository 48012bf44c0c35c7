"""Byte-level BPE (Sennrich et al. 2016, as GPT-2 applies it to bytes), learned from the training half only."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from examples.text.data import Document

SEPARATOR = "<|endoftext|>"
SEPARATOR_ID = 0
VOCABULARY_SIZE = 4096
CONTEXT_TOKENS = 1024
CUT_EVERY = 100
LEAST_TOKENS = 16

Tokens = npt.NDArray[np.int64]


def learn(documents: Sequence[Document], size: int = VOCABULARY_SIZE) -> Tokenizer:
    """A tokenizer of `size` entries: the separator (id 0), the 256 bytes, and merges. It restores any text exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def load(folder: Path) -> Tokenizer:
    """The tokenizer saved in a model's folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(tokenizer: Tokenizer, documents: Sequence[Document]) -> Tokens:
    """One stream, each document's tokens behind a separator."""
    return _joined(tokenizer, ([document.text] for document in documents))


def encode_with_cuts(tokenizer: Tokenizer, documents: Sequence[Document], seed: int) -> Tokens:
    """As `encode`, but the text is cut at random, once in `CUT_EVERY` characters, and the pieces are encoded apart.

    A prompt ends anywhere: behind a space, inside a word. BPE encodes such an ending differently from the same
    characters inside a text, and a model that has never seen these encodings continues them badly.
    """
    source = random.Random(seed)
    return _joined(tokenizer, (list(_pieces(document.text, source)) for document in documents))


def passages(tokenizer: Tokenizer, documents: Sequence[Document], most_tokens: int) -> list[str]:
    """The documents' lines, as many at once as have about `most_tokens`. Lines that are longer alone are left out, and
    so are passages of fewer than `LEAST_TOKENS`."""
    found = []
    for document in documents:
        lines = document.text.splitlines(keepends=True)
        begun, tokens = "", 0
        for line, encoding in zip(lines, tokenizer.encode_batch(lines, add_special_tokens=False), strict=True):
            length = len(encoding.ids)
            if tokens + length > most_tokens:
                found.append((tokens, begun))
                begun, tokens = "", 0
            if length <= most_tokens:
                begun, tokens = begun + line, tokens + length
        found.append((tokens, begun))
    return [passage for tokens, passage in found if tokens >= LEAST_TOKENS]


def token_bytes(tokenizer: Tokenizer) -> Tokens:
    """How many bytes of text each token stands for, by token id [vocabulary]; the separator stands for none."""
    lengths = np.zeros(tokenizer.get_vocab_size(), np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = 0 if token == SEPARATOR else len(token)
    return lengths


def _pieces(text: str, source: random.Random) -> Iterator[str]:
    cuts = sorted(source.sample(range(len(text)), len(text) // CUT_EVERY))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        yield text[start:end]


def _joined(tokenizer: Tokenizer, documents: Iterator[list[str]]) -> Tokens:
    ids: list[int] = []
    for pieces in documents:
        ids.append(SEPARATOR_ID)
        for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False):
            ids.extend(encoding.ids)
    return np.array(ids, np.int64)
