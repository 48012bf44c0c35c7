"""Packages that only an export needs, asked for before anything is begun."""

import importlib.util
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

EXTRA = "pip install 'millrace[export]'"


def need(modules: Sequence[str], what: str) -> None:
    """Raises ValueError with the command that installs them, where one of these modules is not there."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{what} needs {', '.join(missing)}, which is not installed: {EXTRA}")


def versions(*distributions: str) -> dict[str, str]:
    """Of those that are installed, by name."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
