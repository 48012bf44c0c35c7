"""checkov, which knows what makes a pod dangerous. It asks nobody anything: its rules are in the package."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.k8s_check.renderings import Problem, Rendering, write

COMMAND = Path("build/checks/bin/checkov")
MOST_SKIPS = 5
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`skips`: what is passed over, and why, by rule and resource."""

    passed: int
    skips: dict[str, str]
    problems: tuple[Problem, ...]


def check(renderings: Sequence[Rendering]) -> Verdict:
    """Raises FileNotFoundError where checkov is not installed."""
    folder = Path("build/k8s/rendered")
    write(renderings, folder)
    command = [
        str(COMMAND),
        "-d",
        str(folder),
        "--framework",
        "kubernetes",
        "--output",
        "json",
        "--compact",
        "--skip-download",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise ValueError(f"checkov failed: {done.stderr[-500:]}") from None
    return _judge(report)


def _judge(report: dict[str, Any]) -> Verdict:
    results = report["results"]
    problems = [
        Problem(where=f"{Path(found['file_path']).stem}: {found['resource']}", what=_told(found))
        for found in results["failed_checks"]
    ]
    skips = {
        f"{found['check_id']} of {found['resource']}": str(found["check_result"].get("suppress_comment", ""))
        for found in results["skipped_checks"]
    }
    problems += [Problem(where=skip, what="is skipped without a reason") for skip, why in skips.items() if not why]
    if len(skips) > MOST_SKIPS:
        problems.append(Problem(where="checkov", what=f"{len(skips)} skips are more than {MOST_SKIPS}"))
    if report["summary"]["parsing_errors"]:
        problems.append(Problem(where="checkov", what=f"{report['summary']['parsing_errors']} files were not read"))
    return Verdict(passed=report["summary"]["passed"], skips=skips, problems=tuple(problems))


def _told(found: dict[str, Any]) -> str:
    return f"{found['check_id']}: {found['check_name']}"
