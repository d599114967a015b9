"""Writes `dashboards/*.json` for Grafana from the tables in `boards/`: `python deploy/observability/write_dashboards.py`.

The JSON is committed; a test holds it to this program, and another every metric that a query names to a scrape of a running
server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boards.features import FEATURES
from boards.overview import OVERVIEW
from boards.panel import Dashboard, Panel
from boards.ray import RAY
from boards.triton import TRITON
from boards.workloads import WORKLOADS

FOLDER = Path(__file__).parent / "dashboards"
WIDTH, PANEL_HEIGHT = 24, 8
SCHEMA = 39
"""Grafana's schema of dashboards, as of Grafana 10.4; later ones read it."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
DASHBOARDS = (OVERVIEW, FEATURES, TRITON, RAY, WORKLOADS)


def rendered(dashboard: Dashboard) -> str:
    """The JSON that Grafana imports."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in dashboard.rows:
        panels.append(_header(len(panels) + 1, title, y))
        y += 1
        width = WIDTH // min(len(row), 4)
        for place, panel in enumerate(row):
            at = {"h": PANEL_HEIGHT, "w": width, "x": place % 4 * width, "y": y + place // 4 * PANEL_HEIGHT}
            panels.append(_panel(len(panels) + 1, panel, at))
        y += -(-len(row) // 4) * PANEL_HEIGHT
    return json.dumps(_frame(dashboard, panels), indent=2, ensure_ascii=False) + "\n"


def _header(ident: int, title: str, y: int) -> dict[str, Any]:
    return {
        "id": ident,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
        "panels": [],
    }


def _panel(ident: int, panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
        for number, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": ident,
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def _frame(dashboard: Dashboard, panels: list[dict[str, Any]]) -> dict[str, Any]:
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"medserve-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["medserve"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [datasource]},
        "panels": panels,
    }


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.name}.json").write_text(rendered(dashboard))


if __name__ == "__main__":
    main()
