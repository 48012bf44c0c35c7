"""A service for load tests: one frontend, and one worker with the stub model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import Service, Valkey, free_port
from tests.stub_models import write_stub

SLOTS, STEP_S = 4, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    grpc: str
    http: str
    worker: Service


@contextmanager
def serving(models: Path) -> Iterator[Serving]:
    """The model is "stub": so many slots, a token of each every `STEP_S`."""
    write_stub(models, slots=SLOTS, step_ms=1000 * STEP_S)
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with Valkey() as valkey:
        environment = {"MILLRACE_REDIS_URL": valkey.url, "MILLRACE_MODELS": str(models), "MILLRACE_THREADS": "1"}
        addresses = {"MILLRACE_GRPC_ADDRESS": grpc, "MILLRACE_HTTP_ADDRESS": http}
        with (
            Service("services.frontend", environment | addresses),
            Service("services.worker", environment) as worker,
        ):
            yield Serving(grpc=grpc, http=http, worker=worker)
