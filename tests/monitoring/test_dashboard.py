"""No panel and no alert is empty by a typo, and what is committed is what would be made today."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scripts.dashboard.grafana import dashboard
from scripts.metrics_table import DOCUMENT, Families, fill, served

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
AT_TIMES = {"millrace_queue_estimated_wait_seconds", "millrace_tls_certificate_expiry_seconds"}
"""Served once a rate of work was seen, and where there is TLS."""
NAME = re.compile(r"\b(?:millrace|process|vllm|nv)_[a-z_]+\b")


@pytest.fixture(scope="module")
def families() -> Families:
    """What real processes serve after a generation, an inference and a refusal."""
    return asyncio.run(served())


def expressions() -> Iterator[str]:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    yield from (target["expr"] for panel in panels for target in panel.get("targets", ()))
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_what_panels_and_alerts_ask_for_is_served(families: Families) -> None:
    samples = {sample.name for family in families.values() for sample in family.samples}
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 25
    assert asked - samples <= AT_TIMES


def test_the_labels_that_panels_and_alerts_ask_for_are_there(families: Families) -> None:
    known = {label for family in families.values() for sample in family.samples for label in sample.labels}
    known |= {"namespace", "instance"}
    grouped = {
        label.strip()
        for expression in expressions()
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    assert grouped <= known


def test_the_documented_metrics_are_those_that_are_served(families: Families) -> None:
    text = DOCUMENT.read_text()
    assert fill(text, families) == text, "run `make docs`"


def test_the_dashboard_is_the_one_that_is_described() -> None:
    assert (FOLDER / "dashboard.json").read_text() == dashboard(), "run `python -m scripts.dashboard`"
