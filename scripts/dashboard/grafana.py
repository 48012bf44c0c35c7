"""The dashboard as Grafana loads it (its JSON model, schema version 39)."""

import json
from typing import Any

from scripts.dashboard.panels import ROWS, Panel

WIDTH, PANELS_IN_A_ROW, HEIGHT = 24, 4, 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALL = {"selected": True, "text": "All", "value": "$__all"}


def dashboard() -> str:
    model = {
        "uid": "millrace",
        "title": "Millrace",
        "description": "One deployment: is it well, and if not, where. docs/operations.md goes with it.",
        "tags": ["millrace", "inference"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": _panels(),
    }
    return json.dumps(model, indent=1, ensure_ascii=False) + "\n"


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus", "refresh": 1}
    namespace = _variable("namespace", "Namespace", "label_values(millrace_frontend_ready, namespace)")
    models = "label_values(millrace_queue_ready_workers, model)"
    return [source, namespace, _variable("model", "Model", models)]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    """All of them match series that have no such label, too."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": ALL,
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place})
        width = WIDTH // PANELS_IN_A_ROW
        for position, panel in enumerate(row.panels):
            place = {"x": position * width, "y": y + 1, "w": width, "h": HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place} | _panel(panel))
        y += 1 + HEIGHT
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend,
            "exemplar": "_bucket" in query.expression,
        }
        for place, query in enumerate(panel.queries)
    ]
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if panel.stacked else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }
    defaults = {"unit": panel.unit, "min": 0, "custom": custom} | ({} if panel.most is None else {"max": panel.most})
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
