"""Writes `dashboards/*.json` for Grafana from the tables below: `python deploy/observability/write_dashboards.py`.

A dashboard is rows of panels, a panel a title, a unit and its queries with their legends. The JSON is committed; a test holds
it to this program, and another every metric that a query names to a scrape of a running server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
WIDTH, PANEL_HEIGHT = 24, 8
SCHEMA = 39
"""Grafana's schema of dashboards, as of Grafana 10.4; later ones read it."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """`queries`: (PromQL, legend). `unit`: Grafana's name of it. `kind`: "timeseries" or "stat"."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


@dataclass(frozen=True)
class Dashboard:
    """`name`: of the file, and its uid. `rows`: (title, panels)."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def per(name: str, by: str, where: str = "") -> str:
    """The rate of a counter."""
    return f"sum by ({by}) (rate({name}{where}[{RATE}]))"


def quantile(q: float, name: str, by: str, where: str = "") -> str:
    """Of a histogram."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({name}_bucket{where}[{RATE}])))"


def ratio(over: str, under: str) -> str:
    """One rate over another, and nothing where there is none to divide by."""
    return f"{over} / ({under} > 0)"


def stages(pool: str) -> tuple[Panel, Panel]:
    """Where the time of a pool's requests goes."""
    where = f'{{pool="{pool}"}}'
    shown = "medserve_stage_duration_seconds"
    return (
        Panel(f"{pool}: 95th percentile by stage", "s", ((quantile(0.95, shown, "stage", where), "{{stage}}"),)),
        Panel(f"{pool}: seconds of work a second by stage", "s", ((per(f"{shown}_sum", "stage", where), "{{stage}}"),)),
    )


REQUESTS = "medserve_requests_total"
LATENCY = "medserve_request_duration_seconds"
OK = '{outcome="ok"}'
CACHE = "medserve_features_cache_total"

OVERVIEW = Dashboard(
    "overview",
    "medserve: overview by pool and stage",
    (
        (
            "Objectives",
            (
                Panel("Availability, 1 h", "percentunit", (("1 - medserve:unavailable:ratio_rate1h", "answered"),), "stat"),
                Panel(
                    "Interactive requests within a second, 1 h",
                    "percentunit",
                    (("1 - medserve:slow:ratio_rate1h", "in time"),),
                    "stat",
                ),
                Panel("Pools ready", "short", (("min by (pool) (medserve_pool_ready)", "{{pool}}"),), "stat"),
                Panel(
                    "Self-checks passed", "short", (("min by (model, engine) (medserve_selfcheck_ok)", "{{engine}}"),), "stat"
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel("Requests by outcome", "reqps", ((per(REQUESTS, "outcome"), "{{outcome}}"),)),
                Panel("Requests by route", "reqps", ((per(REQUESTS, "route"), "{{route}}"),)),
                Panel(
                    "Latency of answered requests",
                    "s",
                    tuple((quantile(q, LATENCY, "pool", OK), f"{{{{pool}}}} p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
                ),
                Panel(
                    "Latency by priority, 95th percentile", "s", ((quantile(0.95, LATENCY, "priority", OK), "{{priority}}"),)
                ),
            ),
        ),
        ("Stages", (*stages("adaptive"), *stages("contrastive"))),
        (
            "At the door",
            (
                Panel("Refused by reason", "reqps", ((per("medserve_shed_total", "pool, reason"), "{{pool}} {{reason}}"),)),
                Panel(
                    "Expected wait, 95th percentile",
                    "s",
                    ((quantile(0.95, "medserve_expected_wait_seconds", "pool, priority"), "{{pool}} {{priority}}"),),
                ),
                Panel(
                    "Deadlines that had passed, by where it was noticed",
                    "reqps",
                    ((per("medserve_deadline_exceeded_total", "stage"), "{{stage}}"),),
                ),
            ),
        ),
    ),
)

FEATURES = Dashboard(
    "features",
    "medserve: Features, cache and affinity",
    (
        (
            "Cache",
            (
                Panel("Look-ups by outcome", "ops", ((per(CACHE, "pool, outcome"), "{{pool}} {{outcome}}"),)),
                Panel(
                    "Part found",
                    "percentunit",
                    ((ratio(per(CACHE, "pool", '{outcome!="miss"}'), per(CACHE, "pool")), "{{pool}}"),),
                ),
                Panel("Evictions", "ops", ((per("medserve_features_cache_evictions_total", "pool"), "{{pool}}"),)),
                Panel("Bytes held", "bytes", (("sum by (pool) (medserve_features_cache_bytes)", "{{pool}}"),)),
            ),
        ),
        (
            "Arena",
            (
                Panel(
                    "Filled part of each node's arena",
                    "percentunit",
                    (
                        (
                            "medserve_features_arena_used_bytes / (medserve_features_arena_budget_bytes > 0)",
                            "{{instance}} {{pool}}",
                        ),
                    ),
                ),
                Panel(
                    "Images turned away: every slot in use",
                    "ops",
                    ((per("medserve_features_arena_full_total", "instance, pool"), "{{instance}} {{pool}}"),),
                ),
            ),
        ),
        (
            "Affinity",
            (
                Panel(
                    "Prompts by handle that found their Features",
                    "ops",
                    ((per("medserve_affinity_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Requests at their home replica, or at a successor",
                    "reqps",
                    ((per("medserve_affinity_routes_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Changes of a pool's replicas",
                    "short",
                    (("sum by (pool, direction) (increase(medserve_affinity_rehash_total[1h]))", "{{pool}} {{direction}}"),),
                ),
            ),
        ),
    ),
)


def mean_us(name: str) -> str:
    """Of a request, in microseconds, as Triton counts."""
    return ratio(per(name, "model"), per("nv_inference_request_success", "model"))


TRITON = Dashboard(
    "triton",
    "medserve: Triton",
    (
        (
            "Requests",
            (
                Panel("Requests by engine", "reqps", ((per("nv_inference_request_success", "model"), "{{model}}"),)),
                Panel(
                    "Failures by engine and reason",
                    "reqps",
                    ((per("nv_inference_request_failure", "model, reason"), "{{model}} {{reason}}"),),
                ),
                Panel("Waiting", "short", (("sum by (model) (nv_inference_pending_request_count)", "{{model}}"),)),
                Panel(
                    "Mean batch",
                    "short",
                    ((ratio(per("nv_inference_count", "model"), per("nv_inference_exec_count", "model")), "{{model}}"),),
                ),
            ),
        ),
        (
            "Time of a request",
            (
                Panel("In the queue", "µs", ((mean_us("nv_inference_queue_duration_us"), "{{model}}"),)),
                Panel("Computing", "µs", ((mean_us("nv_inference_compute_infer_duration_us"), "{{model}}"),)),
                Panel(
                    "Input and output",
                    "µs",
                    (
                        (mean_us("nv_inference_compute_input_duration_us"), "{{model}} in"),
                        (mean_us("nv_inference_compute_output_duration_us"), "{{model}} out"),
                    ),
                ),
                Panel("In all", "µs", ((mean_us("nv_inference_request_duration_us"), "{{model}}"),)),
            ),
        ),
        (
            "Machine",
            (
                Panel("Processor", "percentunit", (("nv_cpu_utilization", "{{instance}}"),)),
                Panel("Memory", "bytes", (("nv_cpu_memory_used_bytes", "{{instance}}"),)),
            ),
        ),
    ),
)

RAY = Dashboard(
    "ray",
    "medserve: Ray",
    (
        (
            "Replicas",
            (
                Panel(
                    "Healthy replicas",
                    "short",
                    (("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}"),),
                ),
                Panel(
                    "Replicas seen in an hour",
                    "short",
                    (
                        (
                            "count by (deployment) (last_over_time(ray_serve_deployment_replica_starts_total[1h]))",
                            "{{deployment}}",
                        ),
                    ),
                ),
                Panel(
                    "At work in replicas",
                    "short",
                    (("sum by (deployment) (ray_serve_replica_processing_queries)", "{{deployment}}"),),
                ),
                Panel(
                    "Waiting for replicas",
                    "short",
                    (("sum by (deployment) (ray_serve_deployment_queued_queries)", "{{deployment}}"),),
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel(
                    "Requests by deployment",
                    "reqps",
                    ((per("ray_serve_deployment_request_counter_total", "deployment"), "{{deployment}}"),),
                ),
                Panel(
                    "Latency in a deployment, 95th percentile",
                    "ms",
                    ((quantile(0.95, "ray_serve_deployment_processing_latency_ms", "deployment"), "{{deployment}}"),),
                ),
                Panel(
                    "HTTP answers by status",
                    "reqps",
                    ((per("ray_serve_num_http_requests_total", "status_code"), "{{status_code}}"),),
                ),
            ),
        ),
        (
            "Nodes",
            (
                Panel("Processor", "percent", (("ray_node_cpu_utilization", "{{instance}}"),)),
                Panel("Memory used", "bytes", (("ray_node_mem_used", "{{instance}}"),)),
                Panel("Disk used", "percent", (("ray_node_disk_utilization_percentage", "{{instance}}"),)),
                Panel("Shared memory in use", "bytes", (("ray_node_mem_shared_bytes", "{{instance}}"),)),
            ),
        ),
    ),
)

LANGUAGE = '{pool=~"generative|hybrid|conversational|generalist"}'
STAGE = "medserve_stage_duration_seconds"

WORKLOADS = Dashboard(
    "workloads",
    "medserve: volumes and language",
    (
        (
            "Volumes and other bulk work",
            (
                Panel(
                    "Requests by model, bulk",
                    "reqps",
                    ((per(REQUESTS, "model, outcome", '{priority="bulk"}'), "{{model}} {{outcome}}"),),
                ),
                Panel(
                    "Latency of bulk requests, 95th percentile",
                    "s",
                    ((quantile(0.95, LATENCY, "model", '{priority="bulk",outcome="ok"}'), "{{model}}"),),
                ),
                Panel(
                    "Reading files, 95th percentile", "s", ((quantile(0.95, STAGE, "model", '{stage="decode"}'), "{{model}}"),)
                ),
                Panel(
                    "Wait of interactive requests beside them, 95th percentile",
                    "s",
                    ((quantile(0.95, "medserve_expected_wait_seconds", "pool", '{priority="interactive"}'), "{{pool}}"),),
                ),
            ),
        ),
        (
            "Language: empty until a pool of it is served",
            (
                Panel(
                    "Requests of language pools", "reqps", ((per(REQUESTS, "pool, outcome", LANGUAGE), "{{pool}} {{outcome}}"),)
                ),
                Panel(
                    "Latency of language pools, 95th percentile",
                    "s",
                    ((quantile(0.95, LATENCY, "pool", LANGUAGE), "{{pool}}"),),
                ),
                Panel(
                    "Generating, 95th percentile", "s", ((quantile(0.95, STAGE, "model", '{stage="generate"}'), "{{model}}"),)
                ),
            ),
        ),
    ),
)

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
