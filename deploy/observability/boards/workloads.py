"""Volumes and other bulk work, and language."""

from __future__ import annotations

from boards.panel import LATENCY, REQUESTS, STAGE, Dashboard, Panel, per, quantile

LANGUAGE = '{pool=~"generative|hybrid|conversational|generalist"}'
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
