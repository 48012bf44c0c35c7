"""Runs commands in a root filesystem as a container engine would, with bubblewrap: as root while it is built, as its
own uid with nothing to write but /tmp when it serves."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

BUILD_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID", "CAP_SETUID")
WHEELS = "/tmp/wheels"
_VIEW = ("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp")


def build(root: Path, command: Sequence[str], environment: Mapping[str, str], folder: str, wheels: Path) -> None:
    """Runs a step of a build as root, without a network; pip finds its wheels in a folder.

    Raises CalledProcessError.
    """
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "PIP_ROOT_USER_ACTION": "ignore", "PIP_QUIET": "1"}
    bindings = ["--bind", str(root), "/", *_VIEW, "--ro-bind", str(wheels), WHEELS]
    allowed = [word for name in BUILD_CAPABILITIES for word in ("--cap-add", name)]
    arguments = [*bindings, *allowed, "--unshare-net", "--unshare-pid", "--chdir", folder]
    subprocess.run(["bwrap", *arguments, *_settings({**environment, **offline}), *command], check=True)


def served(
    root: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    uid: int,
    mounts: Mapping[str, Path] | None = None,
    is_read_only: bool = True,
) -> list[str]:
    """The command line that runs a command as process 1 with an image's uid: no capabilities, no new ones, a read-only
    root, /tmp in memory. `mounts`: read-only folders by where they are seen.

    The uid is given up before the namespaces are made, so that the kernel sees it, too.
    """
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    user = ["--unshare-user", "--uid", str(uid), "--gid", str(uid), "--unshare-pid", "--unshare-ipc", "--as-pid-1"]
    bindings = ["--ro-bind" if is_read_only else "--bind", str(root), "/", *_VIEW]
    for seen, folder in (mounts or {}).items():
        bindings += ["--ro-bind", str(folder), seen]
    return [*drop, "bwrap", *user, *bindings, "--die-with-parent", "--chdir", "/", *_settings(environment), *command]


def output(
    root: Path, command: Sequence[str], environment: Mapping[str, str], *, uid: int, is_read_only: bool = True
) -> str:
    """What a command in a finished image prints, errors too; its status is not asked for."""
    arguments = served(root, command, environment, uid=uid, is_read_only=is_read_only)
    return subprocess.run(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


def _settings(environment: Mapping[str, str]) -> list[str]:
    return ["--clearenv", *(word for name, value in environment.items() for word in ("--setenv", name, value))]
