"""The Prometheus operator's rule object, made of Prometheus' own rule file: the same alerts, tested there."""

from pathlib import Path

import yaml

from scripts.k8s_check.renderings import Problem

SOURCE = Path("deploy/monitoring/alerts.yaml")
TARGET = Path("deploy/k8s/components/monitoring/alerts.yaml")
HEADER = "# Made by `python -m scripts.k8s_check --write-alerts` from deploy/monitoring/alerts.yaml.\n"


def make() -> str:
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "millrace"},
        "spec": yaml.safe_load(SOURCE.read_text()),
    }
    return HEADER + yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=120)


def check() -> list[Problem]:
    if TARGET.read_text() == make():
        return []
    return [Problem(where=str(TARGET), what="is not today's alerts: python -m scripts.k8s_check --write-alerts")]
