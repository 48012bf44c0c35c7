"""Writes the tables of settings into docs/operations.md, from the classes that read them (`make docs`).

With `--check` (part of `make lint`) it compares them with what the classes say now.
"""

import re
import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from millrace.settings import Settings
from services.frontend.settings import FrontendSettings
from services.worker.settings import WorkerSettings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
PARTS: dict[str, tuple[type[Settings], bool]] = {
    "shared": (Settings, True),
    "frontend": (FrontendSettings, False),
    "worker": (WorkerSettings, False),
}
"""By the name between the document's marks: the class, and whether its inherited settings are listed."""


def table(kind: type[Settings], *, inherited: bool) -> str:
    """One row for each setting: variable, default, meaning."""
    names = kind.model_fields.keys() - (set() if inherited else Settings.model_fields.keys())
    rows = [_row(name, kind.model_fields[name]) for name in kind.model_fields if name in names]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _row(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `MILLRACE_{name.upper()}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "drawn at start"
    if field.default in (None, "", (), {}):
        return "–"
    if isinstance(field.default, bool):
        return "`1`" if field.default else "`0`"
    return f"`{field.default}`"


def fill(text: str) -> str:
    """The document with its tables made anew. Raises ValueError where a mark is missing."""
    for name, (kind, inherited) in PARTS.items():
        begin, end = f"<!-- settings: {name} -->\n", "<!-- end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{DOCUMENT.name} has no mark for the settings of: {name}")
        filled = f"{begin}{table(kind, inherited=inherited)}\n{end}"
        text = pattern.sub(lambda _, filled=filled: filled, text)  # type: ignore[misc]
    return text


def main() -> int:
    written = DOCUMENT.read_text()
    filled = fill(written)
    if sys.argv[1:] != ["--check"]:
        DOCUMENT.write_text(filled)
    elif filled != written:
        print(f"{DOCUMENT.name}: its settings differ from the code; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
