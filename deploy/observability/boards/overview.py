"""Objectives, requests, stages, the door."""

from __future__ import annotations

from boards.panel import LATENCY, REQUESTS, STAGE, Dashboard, Panel, per, quantile

OK = '{outcome="ok"}'


def stages(pool: str) -> tuple[Panel, Panel]:
    """Where the time of a pool's requests goes."""
    where = f'{{pool="{pool}"}}'
    return (
        Panel(f"{pool}: 95th percentile by stage", "s", ((quantile(0.95, STAGE, "stage", where), "{{stage}}"),)),
        Panel(f"{pool}: seconds of work a second by stage", "s", ((per(f"{STAGE}_sum", "stage", where), "{{stage}}"),)),
    )


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
