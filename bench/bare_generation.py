"""The ceiling for generation: continuous batching around ONNX Runtime alone, as little of it as there can be.

    python -m bench.bare_generation SPEC.json RESULT.json

Prompts are prefilled one at a time while there are free rows; then one token is decoded for all rows in one run, in
place in one buffer for each layer; the last row fills the gap of one that has ended. Tokens are the largest logits.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bench.completions import Completions

FLOAT = 1
"""onnx.TensorProto's element type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """A graph as the model builder writes one, and what to generate with it."""

    graph: str
    layers: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    slots: int
    threads: int
    prompts: list[list[int]]
    tokens: list[int]
    """How many to generate after each prompt."""


@dataclass(slots=True)
class Row:
    """One prompt's place in the cache."""

    index: int
    sent: float
    """When its place became free: before that its caller waited for another text."""
    length: int
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, token: int) -> None:
        self.tokens.append(token)
        self.times.append(time.perf_counter())


class Model:
    """The session with its cache, bound in place."""

    def __init__(self, bare: Bare) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = bare.threads
        self._session = ort.InferenceSession(bare.graph, options, providers=["CPUExecutionProvider"])
        shape = (bare.slots, bare.kv_heads, bare.context, bare.head_size)
        self._caches = {
            f"{layer}.{kind}": np.zeros(shape, np.float32) for layer in range(bare.layers) for kind in ("key", "value")
        }
        self._logits = np.zeros((bare.slots, 1, bare.vocabulary), np.float32)

    def run(self, slot: int, token_ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> list[int]:
        """Runs tokens [rows, tokens] in the rows from `slot` on, which are `lengths` long behind it; answers the next
        token of each."""
        rows, binding = len(token_ids), self._session.io_binding()
        mask = (np.arange(lengths.max()) < lengths[:, np.newaxis]).astype(np.int64)
        binding.bind_cpu_input("input_ids", token_ids)
        binding.bind_cpu_input("attention_mask", mask)
        for name, cache in self._caches.items():
            part = cache[slot : slot + rows]
            binding.bind_input(f"past_key_values.{name}", "cpu", 0, FLOAT, part.shape, part.ctypes.data)
            binding.bind_output(f"present.{name}", "cpu", 0, FLOAT, part.shape, part.ctypes.data)
        logits = self._logits[:rows]
        binding.bind_output("logits", "cpu", 0, FLOAT, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        found: list[int] = logits[:, 0].argmax(axis=-1).tolist()
        return found

    def move(self, source: int, target: int, length: int) -> None:
        for cache in self._caches.values():
            cache[target, :, :length] = cache[source, :, :length]


def generate(model: Model, bare: Bare) -> list[Row]:
    """What follows each prompt."""
    waiting, rows = list(reversed(range(len(bare.prompts)))), list[Row]()
    free, done = [time.perf_counter()] * bare.slots, dict[int, Row]()
    while waiting or rows:
        while waiting and len(rows) < bare.slots:
            index = waiting.pop()
            row = Row(index, free.pop(), len(bare.prompts[index]))
            row.add(model.run(len(rows), np.array([bare.prompts[index]]), np.array([row.length]))[0])
            rows.append(row)
        for row in rows:
            row.length += 1
        newest = np.array([row.tokens[-1:] for row in rows])
        for row, token in zip(rows, model.run(0, newest, np.array([row.length for row in rows])), strict=True):
            row.add(token)
        for slot in reversed(range(len(rows))):
            if len(rows[slot].tokens) >= bare.tokens[rows[slot].index]:
                done[rows[slot].index] = rows[slot]
                free.append(rows[slot].times[-1])
                last = rows.pop()
                if slot < len(rows):
                    model.move(len(rows), slot, last.length)
                    rows[slot] = last
    return [done[index] for index in range(len(bare.prompts))]


def measure(bare: Bare) -> Completions:
    model = Model(bare)
    warm: dict[str, Any] = {"prompts": bare.prompts[:2], "tokens": [2, 2]}
    generate(model, replace(bare, **warm))
    began = time.perf_counter()
    rows = generate(model, bare)
    return Completions(
        seconds=time.perf_counter() - began,
        sent_s=[row.sent - began for row in rows],
        times_s=[[at - began for at in row.times] for row in rows],
        token_ids=[row.tokens for row in rows],
    )


def main() -> None:
    spec, result = sys.argv[1:]
    measured = measure(Bare(**json.loads(Path(spec).read_text())))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
