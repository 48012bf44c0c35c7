"""The instructions of a Dockerfile, as far as ours use them: an unknown one is an error."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

STEPS = ("ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER", "WORKDIR")
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    instruction: str
    text: str
    """What follows the instruction, its lines joined."""
    line: int

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def items(self) -> list[str]:
        """The words of an exec form. Raises ValueError for a shell form."""
        if not self.text.startswith("["):
            raise ValueError(f"line {self.line}: {self.instruction} is not in exec form, which hands signals on")
        return [str(item) for item in json.loads(self.text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    """Its number, in digits, where it has no name."""
    base: str
    steps: tuple[Step, ...]


def parse(text: str) -> tuple[Stage, ...]:
    """Raises ValueError for an instruction, or a form of one, that is not known here."""
    globals_: dict[str, str] = {}
    heads: list[tuple[str, str]] = []
    steps: list[list[Step]] = []
    for step in _steps(text):
        if step.instruction == "FROM":
            base, *rest = substitute(step.text, globals_).split()
            heads.append((_name(rest, step, len(heads)), base))
            steps.append([])
        elif heads:
            steps[-1].append(step)
        elif step.instruction == "ARG":
            name, _, default = step.text.partition("=")
            globals_[name] = default
        else:
            raise ValueError(f"line {step.line}: {step.instruction} before the first FROM")
    return tuple(Stage(name=name, base=base, steps=tuple(own)) for (name, base), own in zip(heads, steps, strict=True))


def substitute(text: str, values: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` are replaced; what is not known is empty, as in an engine."""
    return _REFERENCE.sub(lambda found: values.get(found[1] or found[2], ""), text)


def _name(rest: list[str], step: Step, number: int) -> str:
    match rest:
        case []:
            return str(number)
        case [word, name] if word.upper() == "AS":
            return name
        case _:
            raise ValueError(f"line {step.line}: FROM {step.text}: only FROM IMAGE [AS NAME] is known here")


def _steps(text: str) -> Iterator[Step]:
    for line, logical in _logical_lines(text):
        instruction, _, rest = logical.partition(" ")
        if instruction not in (*STEPS, "FROM"):
            raise ValueError(f"line {line}: the instruction {instruction} is not known here")
        yield Step(instruction=instruction, text=rest.strip(), line=line)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and blanks, joined where they end in a backslash; each with its first line's number."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first if parts else number
        parts.append(line.strip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            yield first, " ".join(parts)
            parts = []
    if parts:
        raise ValueError(f"line {first}: the last line goes on")
