"""Lines of JSON or CSV as dictionaries, each with the number of its line."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millrace.evaluating.data.media import medium_of

Row = tuple[int, dict[str, Any]]
FORMATS = (".jsonl", ".ndjson", ".csv")


def rows(path: Path) -> Iterator[Row]:
    """Raises ValueError, with file and line, for a line that is no record; OSError for no such file."""
    for line, row in _csv(path) if path.suffix.lower() == ".csv" else _json(path):
        try:
            yield line, _named(row)
        except ValueError as error:
            raise ValueError(f"{path.name}:{line}: {error}") from None


def _json(path: Path) -> Iterator[Row]:
    """An escape may stand for half a character, which is none."""
    with path.open("rb") as opened:
        for line, raw in enumerate(opened, start=1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
                if b"\\u" in raw:
                    json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path.name}:{line}: is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path.name}:{line}: must be an object, as {{…}}")
            yield line, row


def _csv(path: Path) -> Iterator[Row]:
    """Records by the line on which they begin."""
    with path.open(encoding="utf-8-sig", newline="") as opened:
        reader, line = csv.DictReader(opened, strict=True), 1
        try:
            fields = len(reader.fieldnames or ())
            line = reader.line_num + 1
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path.name}:{line}: must have {fields} fields, as the first line has")
                yield line, row
                line = reader.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name}:{line}: is not CSV in UTF-8: {error}") from None


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """With `file` under the name of what it is."""
    name = row.get("file")
    return {**row, medium_of(name): name} if isinstance(name, str) and name else row
