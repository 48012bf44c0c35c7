"""`make gpu-check`: builds models with random weights, compares their logits on the GPU with the CPU's, and measures.

1  small models: CUDA against the CPU, in both dialects
2  --sizes 1B,8B in --dialects gqa,paged: decode steps of --rows sequences, a prefill, an engine's overhead, memory
3  the table, and with --json all of it; exit 1 where the logits differ, 0 where there is no GPU
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from scripts.gpu_check import agreement, card
from scripts.gpu_check.measure import Plan, measure
from scripts.gpu_check.models import DIALECTS, SIZES, SMALL, Dialect, served_on
from scripts.gpu_check.report import Report
from scripts.gpu_check.roofline import Card, find_card

Name = TypeVar("Name", bound=str)


def main(options: Sequence[str] | None = None) -> int:
    arguments = _arguments(options)
    if reason := card.why_not():
        print(f"skipped: {reason}")
        return 0
    name = card.name()
    report = Report(device=name, card=_peaks(arguments, name))
    plan = Plan(rows=arguments.rows, length=arguments.length, chunk=arguments.chunk)
    for dialect in arguments.dialects:
        _say(f"{dialect}: CUDA against the CPU")
        report.agreement[dialect] = _difference(dialect)
    for size, dialect in itertools.product(arguments.sizes, arguments.dialects):
        shape = served_on(SIZES[size], dialect, "cuda")
        with _folder(arguments.folder) as folder:
            report.models.append(measure(shape, plan, folder, size=size, say=_say))
    report.show(Console(highlight=False))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.plain(), indent=2))
    return int(any(difference > agreement.TOLERANCE for difference in report.agreement.values()))


def _difference(dialect: Dialect) -> float:
    with _folder(None) as folder:
        return agreement.largest_difference(served_on(SMALL, dialect, "cuda"), served_on(SMALL, "gqa", "cpu"), folder)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """Where models are written: the folder given, or one that goes with what is in it."""
    if given is not None:
        yield given
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)


def _peaks(arguments: argparse.Namespace, name: str) -> Card | None:
    if arguments.bandwidth and arguments.flops:
        return Card(bytes_s=arguments.bandwidth * 1e9, flops_s=arguments.flops * 1e12)
    return find_card(name)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _arguments(options: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_names(SIZES), default=list(SIZES), metavar="1B,8B")
    parser.add_argument("--dialects", type=_names(DIALECTS), default=list(DIALECTS), metavar="gqa,paged")
    parser.add_argument("--rows", type=_numbers, default=[1, 8, 32, 128, 256], help="how many sequences decode")
    parser.add_argument("--length", type=int, default=512, help="positions that each of them holds")
    parser.add_argument("--chunk", type=int, default=2048, help="tokens of a prefill")
    parser.add_argument("--bandwidth", type=float, help="the card's, in GB/s, where it is not known by its name")
    parser.add_argument("--flops", type=float, help="the card's, in TFLOP/s of 16-bit matrices")
    parser.add_argument("--folder", type=Path, help="where models are kept for the next time: 3 GB for 1B, 16 for 8B")
    parser.add_argument("--json", type=Path, help="where the figures go for machines")
    return parser.parse_args(options)


def _numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def _names(known: Iterable[Name]) -> Callable[[str], list[Name]]:
    """Reads names that are separated by commas, each one of those known."""
    by_name = {str(name): name for name in known}

    def names(text: str) -> list[Name]:
        chosen = text.split(",")
        if strangers := [name for name in chosen if name not in by_name]:
            raise argparse.ArgumentTypeError(f"{strangers[0]} is not one of {', '.join(by_name)}")
        return [by_name[name] for name in chosen]

    return names


if __name__ == "__main__":
    sys.exit(main())
