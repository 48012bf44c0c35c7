"""What tests of engines do to them: jobs under leases of the same name, and single steps."""

from collections.abc import Sequence

from millrace.engine import Engine, Output, Work


def leased(name: str, request: bytes, results: Sequence[bytes] = (), epoch: int = 1) -> Work:
    """A job whose lease has its name."""
    return Work(lease=name, job=name, request=request, results=results, epoch=epoch)


def step(engine: Engine) -> list[Output]:
    """What the step added; empty where there was nothing to run."""
    return list(engine.step() or ())
