"""`make load`: a fleet on this machine, two minutes of traffic as a chat service sees it, and a report of what it did.

1  millrace up: an embedded Valkey, one frontend, two workers, on free ports
2  millrace load tests/load/scenarios/chat.yaml; its numbers and its report stay in build/load/chat
3  stop; exit with the load test's status

Arguments go to `millrace load`, as --seconds 20.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCENARIO, OUT = Path("tests/load/scenarios/chat.yaml"), Path("build/load/chat")
INTERRUPTED = 130
MILLRACE = (sys.executable, "-m", "millrace.cli")


@contextmanager
def fleet() -> Iterator[tuple[str, str]]:
    """Runs `millrace up`, beyond the reach of Ctrl-C, and gives its gRPC and HTTP address; afterwards it must end with
    status 0."""
    command = (*MILLRACE, "up", "--workers", "2", "--grpc-port", "0", "--http-port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("millrace ready "):
                raise RuntimeError("millrace up did not become ready; its messages above say why")
            addresses = dict(part.split("=") for part in line.split()[2:])
            yield addresses["grpc"], addresses["http"]
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait()
    if status != 0:
        raise RuntimeError(f"the fleet did not stop cleanly: status {status}")


def load(grpc: str, http: str, arguments: list[str]) -> int:
    """Runs the load test, which takes Ctrl-C as the wish to stop early and leaves what it has."""
    signal.signal(signal.SIGINT, lambda *_: None)
    command = (*MILLRACE, "load", str(SCENARIO), "--address", grpc, "--http", http, "--out", str(OUT), *arguments)
    return subprocess.run(command, check=False).returncode


def main() -> int:
    print("starting one frontend, two workers and a Valkey …", flush=True)
    try:
        with fleet() as (grpc, http):
            return load(grpc, http, sys.argv[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
