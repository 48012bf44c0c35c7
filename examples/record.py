"""What was measured so far, as one JSON file that the card is written from."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """Empty where nothing was measured."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record


def note(path: Path, **measures: Any) -> None:
    """Add to the record, or replace what is there of these names."""
    path.write_text(json.dumps(read(path) | measures, indent=1))


def complete(record: dict[str, Any], *names: str) -> None:
    """Raises FileNotFoundError where a part that measures has not been run."""
    if missing := sorted(set(names) - record.keys()):
        raise FileNotFoundError(f"not measured yet: {', '.join(missing)}")
