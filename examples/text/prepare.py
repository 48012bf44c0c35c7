"""The first part of the path: read the corpus, learn the tokenizer, and keep the encoded streams in the work folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.text import data, tokenizer
from examples.text.tokenizer import Tokens

CUT_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The encoded corpus. `train` is encoded with cuts, the others without; `counts` has files, bytes and tokens."""

    tokenizer: Any
    train: Tokens
    train_plain: Tokens
    held_out: Tokens
    counts: dict[str, int]


def prepare(work: Path) -> Prepared:
    """Make the streams from the running interpreter's standard library and write them to `work`."""
    corpus = data.read_corpus()
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
