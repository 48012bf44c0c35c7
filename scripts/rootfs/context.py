"""The files of a build's context: those that `.dockerignore` lets in."""

import re
from pathlib import Path


def context(root: Path) -> list[Path]:
    """The files below `root`, relative to it, in order. As an engine does, the last pattern that matches decides."""
    rules = [_rule(line) for line in _patterns((root / ".dockerignore").read_text())]
    tops = [path for path in sorted(root.iterdir()) if _is_let_in(path.name, rules)]
    files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*"))) if file.is_file()]
    return [name for file in files if _is_let_in(str(name := file.relative_to(root)), rules)]


def _is_let_in(name: str, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    return next((is_let_in for pattern, is_let_in in reversed(rules) if pattern.fullmatch(name)), True)


def _patterns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _rule(pattern: str) -> tuple[re.Pattern[str], bool]:
    """A pattern covers what lies below what it names, too."""
    is_let_in = pattern.startswith("!")
    words = re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(f"{words}(?:/.*)?"), is_let_in
