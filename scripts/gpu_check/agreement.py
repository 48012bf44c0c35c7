"""Whether a device's logits are those of the CPU: the same texts through the same weights, prefilled in chunks beside
each other, begun from a shared prefix, forked, moved, and decoded."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.gpu_check.models import open_decoder
from services.worker.generation.decoder import Chunk, Decoder, TokenIds
from services.worker.generation.paged.graph import Transform
from services.worker.session import Buffer
from tests.models import Llama

Floats = npt.NDArray[np.float32]
TOLERANCE = 0.1
"""In standard deviations of the logits. Half floats differ by 0.03 on a CPU, one layer more or less by 6."""
SHARED, LENGTHS, STEPS = 256, (300, 420, 261), 24
"""Positions of the prefix that the first two texts share, of the three prompts, and decode steps."""
NO_TOKENS, NO_LENGTHS = np.zeros((0, 1), np.int64), np.zeros(0, np.int32)


def largest_difference(shape: Llama, exact: Llama, folder: Path, *, transform: Transform | None = None) -> float:
    """Between the logits that the two shapes' models give, in standard deviations; infinite where one is no number."""
    texts = made_texts(shape.vocabulary_size)
    found, expected = (
        _logits(open_decoder(each, folder, transform=transform), texts, each.prefill_chunk_tokens)
        for each in (shape, exact)
    )
    difference = float(np.abs(found - expected).max() / expected.std())
    return difference if np.isfinite(difference) else float("inf")


def on_host(buffer: Buffer) -> Floats:
    """A copy of what is in it."""
    values = buffer.owner if buffer.device == "cpu" else buffer.owner.numpy()
    return np.array(values, np.float32)


def made_texts(vocabulary_size: int) -> list[TokenIds]:
    """Three prompts with what is decoded behind them."""
    dice = np.random.default_rng(0)
    texts = [dice.integers(1, vocabulary_size, length + STEPS) for length in LENGTHS]
    texts[1][:SHARED] = texts[0][:SHARED]
    return texts


def _logits(decoder: Decoder, texts: list[TokenIds], chunk: int) -> Floats:
    """Of three rows behind their prompts, and of four behind each step [3 + 4 * STEPS, vocabulary]."""
    prompts = [text[:length] for text, length in zip(texts, LENGTHS, strict=True)]
    first = _prefill(decoder, {0: prompts[0]}, chunk)
    others = _prefill(decoder, {1: prompts[1], 2: prompts[2]}, chunk)
    kept = [first[0], others[1], others[2]]
    decoder.fork(0, 3, LENGTHS[0])
    texts, filled = [*texts, texts[0]], [*LENGTHS, LENGTHS[0]]
    for step in range(STEPS):
        if step == STEPS // 2:  # The second text leaves, and the forked one takes its place and is forked again.
            decoder.close(1)
            decoder.move(3, 1, filled[3])
            decoder.fork(1, 3, filled[3])
            texts[1], filled[1] = texts[3], filled[3]
        for row, length in enumerate(filled):
            if not decoder.reserve(row, length + 1):
                raise MemoryError(f"no memory for position {length} of row {row}")
        token_ids = np.array([[text[length]] for text, length in zip(texts, filled, strict=True)])
        decoder.run(token_ids, np.array(filled, np.int32), ())
        kept += list(on_host(decoder.logits)[:4, 0])
        filled = [length + 1 for length in filled]
    return np.array(kept)


def _prefill(decoder: Decoder, prompts: dict[int, TokenIds], chunk: int) -> dict[int, Floats]:
    """A chunk of each prompt in every run, until all are there; answers the logits behind each."""
    starts, kept = {row: decoder.open(row, prompt) for row, prompt in prompts.items()}, dict[int, Floats]()
    while len(kept) < len(prompts):
        chunks = []
        for row in prompts.keys() - kept.keys():
            start, end = starts[row], min(starts[row] + chunk, len(prompts[row]))
            if not decoder.reserve(row, end):
                raise MemoryError(f"no memory for position {end} of row {row}")
            chunks.append(Chunk(row, prompts[row][start:end], start, end == len(prompts[row])))
            starts[row] = end
        decoder.run(NO_TOKENS, NO_LENGTHS, sorted(chunks, key=lambda one: one.row))
        logits = on_host(decoder.logits)
        kept |= {one.row: logits[one.row, 0] for one in chunks if one.wanted}
    return kept
