"""Traces of arrivals: CSV with a header, or JSON lines.

arrival_s,prompt_tokens,output_tokens
0.0,120,64
0.4,80,12

Times are seconds from any moment on, in order. The lengths may be left out, all of a column or here and there.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

ARRIVAL = "arrival_s"
COLUMNS = (ARRIVAL, "prompt_tokens", "output_tokens")
MOST_TOKENS = 10_000_000

Parse: TypeAlias = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    arrival_s: float
    prompt_tokens: int | None
    output_tokens: int | None


def read_trace(path: Path) -> Iterator[Row]:
    """Reads as far as it is asked to. Raises ValueError that names the line for the first one that is wrong, or where
    there is none at all; OSError where the file cannot be read."""
    parse: Parse | None = None
    last_s = None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                if not line.strip():
                    continue
                if parse is None:
                    parse = _parser(line)
                    if parse is not _from_json:
                        continue
                row = _row(parse(line))
                if last_s is not None and row.arrival_s < last_s:
                    raise ValueError(f"{ARRIVAL} {row.arrival_s:g} comes after {last_s:g}: sort the trace by it")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            last_s = row.arrival_s
            yield row
    if last_s is None:
        raise ValueError(f"{path} holds no requests")


def _parser(first: str) -> Parse:
    """By the first line: JSON as it is, or the header of CSV."""
    if first.lstrip().startswith("{"):
        return _from_json
    header = _cells(first)
    _check_names(header)
    if len(set(header)) < len(header):
        raise ValueError("a column is there twice")

    def parse(line: str) -> Mapping[str, Any]:
        cells = _cells(line)
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells under {len(header)} columns")
        return dict(zip(header, cells, strict=True))

    return parse


def _from_json(line: str) -> Mapping[str, Any]:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"no JSON object: {line.strip()[:80]}")
    _check_names(fields)
    return fields


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _check_names(names: list[str] | Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or ARRIVAL not in names:
        wrong = f"{unknown[0]!r} is unknown" if unknown else f"{ARRIVAL} is missing"
        raise ValueError(f"{wrong}: a trace has {', '.join(COLUMNS)}")


def _row(fields: Mapping[str, Any]) -> Row:
    return Row(
        arrival_s=_seconds(fields[ARRIVAL]),
        prompt_tokens=_tokens(fields, "prompt_tokens"),
        output_tokens=_tokens(fields, "output_tokens"),
    )


def _seconds(value: Any) -> float:
    number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{ARRIVAL} must be seconds from 0 on, not {value!r}")
    return number


def _tokens(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    number = int(value) if (isinstance(value, str) and value.isdecimal()) or type(value) is int else 0
    if not 1 <= number <= MOST_TOKENS:
        raise ValueError(f"{name} must be a whole number from 1 to {MOST_TOKENS}, not {value!r}")
    return number
