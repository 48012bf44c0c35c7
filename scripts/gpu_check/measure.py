"""One model in one dialect, from its weights to its figures."""

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check import card, speed
from scripts.gpu_check.models import context, open_decoder, sized
from scripts.gpu_check.report import Measured, Run
from scripts.gpu_check.roofline import decode_work, position_bytes, prefill_work, weight_bytes
from services.worker.generation.sampling.sampler import Sampler
from tests.models import Llama

RESERVE_BYTES = 4 << 30
"""What activations, the CUDA context and the runtime's arena are expected to take of a card."""
ENGINE_ROWS = 32
NO_CHUNK = 16
Say = Callable[[str], None]
Part = Callable[[Llama, "Plan", Path, Measured], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: decode steps of so many rows that hold `length` positions each, and a prefill of `chunk`
    tokens."""

    rows: list[int]
    length: int
    chunk: int
    steps: int = speed.STEPS

    @property
    def filling_steps(self) -> int:
        """Of an engine at most, until all of its rows decode."""
        return ENGINE_ROWS * -(-self.length // self.chunk)

    @property
    def row_length(self) -> int:
        """Positions that a decoding row must have room for."""
        return self.length + speed.WARM + self.steps + self.filling_steps


def measure(shape: Llama, plan: Plan, folder: Path, *, size: str, say: Say) -> Measured:
    """Whatever fits. What does not, or fails, is noted, and the rest goes on."""
    measured = Measured(size=size, dialect=shape.dialect, weights_bytes=weight_bytes(shape))
    parts: dict[str, Part] = {"decode": _decode, "prefill": _prefill, "overhead": _overhead}
    if shape.dialect == "paged":
        parts["decode, captured"] = functools.partial(_decode, captures=True)
    for name, part in parts.items():
        say(f"{size} {shape.dialect}: {name}")
        try:
            part(shape, plan, folder, measured)
        except Exception as error:  # ONNX Runtime raises types of its own, and one model's end is not the others'.
            measured.missing.append(f"no {name}: {error}")
        gc.collect()
    return measured


def fitting_rows(shape: Llama, plan: Plan, total_bytes: int | None) -> list[int]:
    """Those numbers of rows whose KV memory fits beside the weights into a card of so many bytes; all where that is not
    known."""
    if total_bytes is None:
        return plan.rows
    row_bytes = plan.row_length * position_bytes(shape)
    return [rows for rows in plan.rows if weight_bytes(shape) + rows * row_bytes + RESERVE_BYTES <= total_bytes]


def _decode(shape: Llama, plan: Plan, folder: Path, measured: Measured, *, captures: bool = False) -> None:
    memory = card.memory()
    fitting = fitting_rows(shape, plan, memory.total_bytes if memory else None)
    large = [str(rows) for rows in plan.rows if rows not in fitting]
    if large:
        measured.missing.append(f"no room for {', '.join(large)} sequences of {plan.row_length} positions")
    if not fitting:
        return
    decoder = open_decoder(
        sized(shape, rows=max(fitting), length=plan.row_length, chunk=NO_CHUNK), folder, captures=captures
    )
    sampler = Sampler(decoder.logits, threads=0)
    for rows in fitting:
        seconds = speed.decode_seconds(decoder, sampler, rows=rows, length=plan.length, steps=plan.steps)
        work = decode_work(shape, rows, plan.length)
        kind = "decode, captured" if captures else "decode"
        measured.runs.append(Run(kind=kind, rows=rows, seconds=seconds, work=work))
    loaded = card.memory()
    measured.sequences_bytes = decoder.memory_bytes
    measured.used_bytes = loaded.used_bytes if loaded else None


def _prefill(shape: Llama, plan: Plan, folder: Path, measured: Measured) -> None:
    decoder = open_decoder(sized(shape, rows=1, length=plan.chunk, chunk=plan.chunk), folder)
    seconds = speed.prefill_seconds(decoder, Sampler(decoder.logits, threads=0), tokens=plan.chunk)
    measured.runs.append(Run(kind="prefill", rows=1, seconds=seconds, work=prefill_work(shape, plan.chunk)))


def _overhead(shape: Llama, plan: Plan, folder: Path, measured: Measured) -> None:
    served = sized(shape, rows=ENGINE_ROWS, length=plan.row_length, chunk=plan.chunk)
    measured.overhead = speed.engine_overhead(
        context(served, folder), rows=ENGINE_ROWS, length=plan.length, filling=plan.filling_steps, steps=plan.steps
    )
