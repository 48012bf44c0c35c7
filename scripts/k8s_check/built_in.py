"""Kubernetes' own kinds, by `kubernetes-validate --strict`, which refuses what a schema does not name."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from scripts.k8s_check.custom import CUSTOM_GROUPS
from scripts.k8s_check.renderings import Problem, Rendering, distinct

COMMAND = Path("build/checks/bin/kubernetes-validate")
VERSIONS = ("1.33", "1.37")
"""The oldest that the manifests are for, and the newest that the tool knows."""
TIMEOUT_S = 120
FOUND = re.compile(r"^(?:ERROR|WARN) +\S*?(\d+)\.yaml +(.*)$")


def check(renderings: Sequence[Rendering]) -> list[Problem]:
    """A kind without a schema is a problem too. Raises FileNotFoundError where the tool is not installed."""
    folder = Path("build/k8s/built-in")
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    labels: list[str] = []
    for where, document in distinct(renderings):
        if document["apiVersion"].partition("/")[0] not in CUSTOM_GROUPS:
            files.append(folder / f"{len(files)}.yaml")
            files[-1].write_text(yaml.safe_dump(document))
            labels.append(where)
    return [problem for version in VERSIONS for problem in _validate(version, files, labels)]


def _validate(version: str, files: Sequence[Path], labels: Sequence[str]) -> list[Problem]:
    command = [str(COMMAND), "--strict", "--quiet", "-k", version, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    found = [match for line in (done.stdout + done.stderr).splitlines() if (match := FOUND.match(line))]
    if done.returncode and not found:
        raise ValueError(f"kubernetes-validate failed: {(done.stderr or done.stdout)[-500:]}")
    return [Problem(where=labels[int(match[1])], what=f"{version}: {match[2]}") for match in found]
