"""The first part of the path: read the corpus, learn the tokenizer, and keep the encoded streams in the work folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.text import data, tokenizer
from examples.text.tokenizer import Tokens

CUT_SEED = 0
PASSAGE_TOKENS = 448
SERVED, JUDGING = "held_out.jsonl", "judging.jsonl"
"""Held-out passages that are measured through the service, and others that judge the smaller graphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The encoded corpus. `train` is encoded with cuts, the others without; `counts` has files, bytes and tokens."""

    tokenizer: Any
    train: Tokens
    train_plain: Tokens
    held_out: Tokens
    counts: dict[str, int]


def prepare(work: Path, *, one_in: int = 1, passages: int = 100) -> Prepared:
    """Make the streams from the running interpreter's standard library, of one file in so many, and write them to
    `work`, with twice so many passages of the held-out files, or as many as there are."""
    corpus = data.fewer(data.read_corpus(), one_in)
    words = tokenizer.learn(corpus.train)
    train = tokenizer.encode_with_cuts(words, corpus.train, CUT_SEED)
    train_plain, held_out = tokenizer.encode(words, corpus.train), tokenizer.encode(words, corpus.held_out)
    counts = {
        "train_files": len(corpus.train),
        "train_bytes": data.size_bytes(corpus.train),
        "train_tokens": len(train_plain),
        "held_out_files": len(corpus.held_out),
        "held_out_bytes": data.size_bytes(corpus.held_out),
        "held_out_tokens": len(held_out),
    }
    work.mkdir(parents=True, exist_ok=True)
    words.save(str(work / "tokenizer.json"))
    np.savez(work / "streams.npz", train=train, train_plain=train_plain, held_out=held_out)
    chosen = tokenizer.passages(words, corpus.held_out, PASSAGE_TOKENS)
    chosen = chosen[:: max(1, len(chosen) // (2 * passages))][: 2 * passages]
    _write(chosen[::2], work / SERVED)
    _write(chosen[1::2], work / JUDGING)
    (work / "corpus.json").write_text(json.dumps(counts, indent=1))
    return Prepared(tokenizer=words, train=train, train_plain=train_plain, held_out=held_out, counts=counts)


def load(work: Path) -> Prepared:
    """Read what `prepare` wrote. Raises FileNotFoundError when it has not run."""
    if not (work / "corpus.json").exists():
        raise FileNotFoundError(f"nothing is prepared in {work}")
    streams = np.load(work / "streams.npz")
    return Prepared(
        tokenizer=tokenizer.load(work),
        train=streams["train"],
        train_plain=streams["train_plain"],
        held_out=streams["held_out"],
        counts=json.loads((work / "corpus.json").read_text()),
    )


def texts(path: Path) -> list[str]:
    """Of a file of passages."""
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def _write(passages: Sequence[str], path: Path) -> None:
    path.write_text("".join(f"{json.dumps({'text': passage})}\n" for passage in passages))
