"""Both images at work: against a real Valkey, as their uid, with a read-only root and no capabilities."""

import os
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import millrace
from scripts.rootfs import sandbox
from scripts.rootfs.stages import Image
from tests.processes import Service, Valkey, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
TOKENS = 48


class Container(Service):
    """A finished image's entry point as process 1. Signals go to it, as an engine sends them."""

    def __init__(
        self, image: Image, environment: Mapping[str, str], mounts: Mapping[str, Path], health_address: str
    ) -> None:
        super().__init__("")
        settings = {**image.environment, **environment}
        self._command = sandbox.served(image.root, image.entrypoint, settings, uid=image.uid, mounts=mounts)
        self.ready_s = 0.0
        self.health_address = health_address

    def start(self, within_s: float = 60.0) -> None:
        began = time.monotonic()
        super().start(within_s)
        self.ready_s = time.monotonic() - began

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._inner, number)

    def stop(self, within_s: float = 30.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(within_s)

    def status(self, name: str) -> str:
        """What the kernel says of the process inside: Uid, CapEff, NoNewPrivs."""
        lines = Path(f"/proc/{self._inner}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))

    @property
    def _inner(self) -> int:
        """Process 1 of the container, as the host numbers it."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])


def live(frontend: Image, worker: Image) -> dict[str, str]:
    """Starts both, streams and infers through them, stops them with SIGTERM; answers what was seen.

    Raises ValueError, or what the client raises, where anything is not as it should be.
    """
    seen: dict[str, str] = {}
    with (
        Valkey() as valkey,
        _container("frontend", frontend, valkey.url) as one,
        _container("worker", worker, valkey.url) as two,
    ):
        for name, container in (("frontend", one), ("worker", two)):
            seen[f"{name}: ready after"] = f"{container.ready_s:.1f} s"
            seen[f"{name}: /readyz, /metrics"] = _pages(container.health_address)
            seen[f"{name}: uid, capabilities"] = _privileges(container)
        seen[f"a stream, {TOKENS} tokens"] = _stream(one.ready["grpc"])
        seen["a constrained text"] = _choose(one.ready["grpc"])
        seen["a batch of tensors"] = _infer(one.ready["grpc"])
        for name, container in (("worker", two), ("frontend", one)):
            seen[f"{name}: exit status after SIGTERM"] = _end(container)
    return seen


@contextmanager
def _container(name: str, image: Image, redis: str) -> Iterator[Container]:
    health = f"127.0.0.1:{free_port()}"
    frontend = {
        "MILLRACE_GRPC_ADDRESS": "127.0.0.1:0",
        "MILLRACE_HTTP_ADDRESS": "127.0.0.1:0",
        "MILLRACE_HEALTH_ADDRESS": health,
    }
    told = frontend if name == "frontend" else {"MILLRACE_HTTP_ADDRESS": health}
    mounts = {} if name == "frontend" else {"/models": ROOT / "models"}
    with Container(image, {"MILLRACE_REDIS_URL": redis, **told}, mounts, health) as container:
        yield container


def _end(container: Container) -> str:
    began = time.monotonic()
    status = container.stop()
    if status != 0:
        raise ValueError(f"the exit status is {status}:\n{container.log[-2000:]}")
    return f"0, after {time.monotonic() - began:.1f} s"


def _privileges(container: Container) -> str:
    uid, capabilities = container.status("Uid").split()[1], container.status("CapEff")
    if int(uid) == 0 or int(capabilities, 16) != 0 or container.status("NoNewPrivs") != "1":
        raise ValueError(f"the process runs with uid {uid} and the capabilities {capabilities}")
    return f"{uid}, none"


def _pages(address: str) -> str:
    sizes = []
    for path in ("/readyz", "/metrics"):
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as page:
            sizes.append(f"{page.status} ({len(page.read())} bytes)")
    return ", ".join(sizes)


def _stream(address: str) -> str:
    with millrace.Client(address) as client:
        text = "".join(delta.text for delta in client.generate("pycode", "import os\n", max_tokens=TOKENS, seed=1))
    if not text:
        raise ValueError("the stream was empty")
    return repr(text[:40])


def _choose(address: str) -> str:
    """Its grammar is compiled in a process of its own, which the worker starts."""
    levels = ("debug", "info", "warning")
    with millrace.Client(address) as client:
        text = "".join(delta.text for delta in client.generate("pycode", 'LEVEL = "', choices=levels))
    if text not in levels:
        raise ValueError(f"the text is {text!r}, which is none of {levels}")
    return repr(text)


def _infer(address: str) -> str:
    images = np.load(ROOT / "models/digits/held_out.npz")["x"][:8].astype("float32")
    with millrace.Client(address) as client:
        return str(client.infer("digits", {"x": images})["label"].tolist())
