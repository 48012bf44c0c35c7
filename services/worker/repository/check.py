"""Run as `python -m services.worker.repository.check REPOSITORY [DEVICE]`: reads every version as a worker does and,
with a device, loads it there. What would be refused stands on standard error, and the status is then 1."""

import sys
from collections.abc import Sequence
from pathlib import Path

from services.worker import repository


def check(folder: Path, device: str | None) -> Sequence[str]:
    """A sentence for each version that would not be served."""
    models, broken = repository.scan(folder)
    problems = [f"{one.path.parent.name}/{one.path.name}: {one.reason}" for one in broken]
    for model in models if device else ():
        try:
            repository.load(model, device or "", threads=1)
        except ValueError as error:
            problems.append(f"{model.name}/{model.version}: {error}")
    return problems if models or broken else [f"{folder} holds no model"]


if __name__ == "__main__":
    found = check(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    print(*found, sep="\n", file=sys.stderr)
    sys.exit(1 if found else 0)
