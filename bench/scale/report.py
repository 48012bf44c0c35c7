"""What was measured: tables in Markdown for people and docs, JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import machine
from bench.report import NOISY_CORES, Run, describe_run, write_number

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numbers are written with three digits, or with all of them where there are more."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float]]

    def markdown(self) -> str:
        written = [[each if isinstance(each, str) else write_number(each) for each in row] for row in self.rows]
        lines = [self.columns, ["---", *["--:"] * (len(self.columns) - 1)], *written]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part's tables, and all that they were made from."""

    name: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        return "\n\n".join([*(table.markdown() for table in self.tables), *(f"- {note}" for note in self.notes)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Run):
    """A whole run."""

    parts: tuple[Part, ...]

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self), indent=1)

    def markdown(self) -> str:
        hardware = ", ".join(f"{name} {value}" for name, value in self.hardware.items())
        versions = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        noise = f"; others used {self.others_cores:.2f} cores meanwhile" if self.others_cores > NOISY_CORES else ""
        end = f"{self.seconds / 60:.1f} minutes on {hardware}; {versions}{noise}"
        return "\n\n".join([*(part.markdown() for part in self.parts), end]) + "\n"


def make_report(settings: Any, parts: Sequence[Part], watch: machine.Watch) -> Report:
    """Of a run that ends here. `settings`: a dataclass."""
    return Report(**describe_run(settings, watch), parts=tuple(parts))
