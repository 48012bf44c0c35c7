"""The alerts, as Prometheus' own tool reads them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="Debian's package prometheus is not installed")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def expected() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    return [test for group in groups for test in group["alert_rule_test"]]


@needs_promtool
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_accepts(command: tuple[str, ...]) -> None:
    ran = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    fired = {test["alertname"] for test in expected() if test["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}


def test_each_alert_says_how_bad_it_is_and_where_to_read_on() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert re.fullmatch(r"Millrace[A-Za-z]+", rule["alert"])
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"].endswith(".")
