"""Measures generation through the whole service against the bare engine, on the same model, threads and requests.

    python -m bench                    all of it, about two minutes
    python -m bench --streams 8 --rounds 1

Bare is `GenerationEngine` alone in a process: no queue, no RPC. The service is one frontend, one worker and an embedded
Valkey, called by one client process over gRPC; all of it shares the machine. Every round measures both, one after the
other, and the ratio is taken within the round.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.bare import run_bare
from bench.service import run_service

THREADS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measurement of both, in tokens per second; times to the first token in milliseconds."""

    streams: int
    bare: float
    service: float
    first_token_p50_ms: float
    first_token_p99_ms: float

    @property
    def ratio(self) -> float:
        return self.service / self.bare


async def measure(models: Path, model: str, streams: Sequence[int], rounds: int, max_tokens: int) -> list[Round]:
    measured = []
    for count in streams:
        for _ in range(rounds):
            bare = await asyncio.to_thread(run_bare, models, model, count, max_tokens, THREADS)
            rate, firsts = await run_service(models, model, count, max_tokens, THREADS)
            percentiles = statistics.quantiles(firsts * 2, n=100)
            measured.append(
                Round(
                    streams=count,
                    bare=bare,
                    service=rate,
                    first_token_p50_ms=1000 * percentiles[49],
                    first_token_p99_ms=1000 * percentiles[98],
                )
            )
    return measured


def show(rounds: Sequence[Round], console: Console) -> None:
    table = Table("streams", "bare engine tok/s", "service tok/s", "ratio", "first token p50", "p99")
    for streams in sorted({entry.streams for entry in rounds}):
        same = [entry for entry in rounds if entry.streams == streams]
        table.add_row(
            str(streams),
            *(f"{statistics.median(getattr(entry, name) for entry in same):.0f}" for name in ("bare", "service")),
            f"{statistics.median(entry.ratio for entry in same):.2f}",
            f"{statistics.median(entry.first_token_p50_ms for entry in same):.0f} ms",
            f"{statistics.median(entry.first_token_p99_ms for entry in same):.0f} ms",
        )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="pycode")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3, help="the table shows medians")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--json", type=Path, help="write every round there")
    options = parser.parse_args()
    console = Console()
    console.print(
        f"{options.model}, {options.max_tokens} tokens a stream, {THREADS} thread for the model, {_machine()}"
    )
    rounds = asyncio.run(measure(options.models, options.model, options.streams, options.rounds, options.max_tokens))
    show(rounds, console)
    if options.json:
        options.json.write_text(json.dumps([{n: getattr(r, n) for n in Round.__slots__} for r in rounds], indent=1))
    return 0


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
