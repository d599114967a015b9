"""Every metric, its unit, its labels and its buckets. Nothing else in the project creates a metric.

Replicas are many processes on a node: with ``PROMETHEUS_MULTIPROC_DIR`` set (``medserve up`` sets it) each process writes
memory-mapped files there, and a scrape adds them up, whichever process answers it. Labels are bounded: routes, pools,
models, stages, outcomes and priorities; never an image, a user or a patient.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.telemetry.stages import STAGES

BUCKETS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60,
)  # fmt: skip
PREFIX = "medserve_"
ROUTES = ("infer", "segment", "images", "classify", "embed", "models", "volumes")
OUTCOMES = ("ok", "client_error", "shed", "deadline", "server_error")
SHED_REASONS = ("deadline", "wait", "pool_full", "over_quota")
PRIORITIES = ("interactive", "bulk")
CACHE_OUTCOMES = ("hit", "miss", "coalesced")
JOB_OUTCOMES = ("done", "failed", "cancelled")
AFFINITY_OUTCOMES = ("hit", "miss")
AFFINITY_ROUTES = ("home", "fallback")
REHASH_DIRECTIONS = ("up", "down", "swap")


class Metrics:
    """The metrics of one process: see `of_this_process`."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        request = ("route", "pool", "model", "outcome", "priority")
        self.requests = Counter("medserve_requests", "Requests answered.", request, registry=registry)
        self.request_duration = Histogram(
            "medserve_request_duration_seconds", "From the whole body to the answer, seconds.", request,
            buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.stage_duration = Histogram(
            "medserve_stage_duration_seconds", "One stage of one request, seconds.", ("pool", "model", "stage"),
            buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.shed = Counter("medserve_shed", "Requests refused at the door.", ("pool", "reason"), registry=registry)
        self.expected_wait = Histogram(
            "medserve_expected_wait_seconds", "The wait that a request found at a pool's door, seconds.", ("pool", "priority"),
            buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.deadline_exceeded = Counter(
            "medserve_deadline_exceeded", "Deadlines that passed, by where it was noticed.", ("stage",), registry=registry
        )
        self.features_cache = Counter(
            "medserve_features_cache", "Look-ups of Features.", ("pool", "outcome"), registry=registry
        )
        self.features_evictions = Counter(
            "medserve_features_cache_evictions", "Features dropped for room or age.", ("pool",), registry=registry
        )
        self.features_bytes = Gauge(
            "medserve_features_cache_bytes",
            "Bytes of Features kept.",
            ("pool",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.arena_used = Gauge(
            "medserve_features_arena_used_bytes", "Bytes of this node's arena that hold Features.", ("pool",),
            registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self.arena_budget = Gauge(
            "medserve_features_arena_budget_bytes", "Bytes of this node's arena in all.", ("pool",),
            registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self.arena_full = Counter(
            "medserve_features_arena_full", "Images turned away because every slot of the arena was in use.", ("pool",),
            registry=registry,
        )  # fmt: skip
        self.pool_ready = Gauge(
            "medserve_pool_ready", "Whether the pool and every engine of it took work within the last seconds: 1 or 0.",
            ("pool",), registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self.selfcheck_ok = Gauge(
            "medserve_selfcheck_ok", "Whether an engine answered at its start as when it was built: 1 or 0.",
            ("model", "engine"), registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.affinity = Counter(
            "medserve_affinity", "Prompts by handle that found their Features where they landed, or not.",
            ("pool", "outcome"), registry=registry,
        )  # fmt: skip
        self.affinity_routes = Counter(
            "medserve_affinity_routes", "Requests with an image, sent to its home replica or to a successor of it.",
            ("pool", "outcome"), registry=registry,
        )  # fmt: skip
        self.affinity_rehash = Counter(
            "medserve_affinity_rehash", "Changes of a pool's replicas, each of which gives some images another home.",
            ("pool", "direction"), registry=registry,
        )  # fmt: skip

        self.volume_slices = Counter(
            "medserve_volume_slices", "Slices of volumes that were worked on.", ("pool", "model"), registry=registry
        )
        self.volume_jobs = Counter("medserve_volume_jobs", "Volume jobs that came to an end.", ("outcome",), registry=registry)
        self.volume_jobs_active = Gauge(
            "medserve_volume_jobs_active",
            "Volume jobs under way.",
            (),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.resent = Counter(
            "medserve_resent", "Calls that a pool's replica lost and another was sent.", ("pool",), registry=registry
        )
        self.model_share = Gauge(
            "medserve_model_share", "Share of a model's new images that this version of it answers, 0..1.",
            ("pool", "model", "digest"), registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip

    def prepare_edge(self, pools: Iterable[str]) -> None:
        """Create the front's series at zero."""
        for stage in ("edge", "router", "pool"):
            self.deadline_exceeded.labels(stage)
        for outcome in JOB_OUTCOMES:
            self.volume_jobs.labels(outcome)
        self.volume_jobs_active.set(0)
        for pool in pools:
            self.resent.labels(pool)
            for reason in SHED_REASONS:
                self.shed.labels(pool, reason)
            for priority in PRIORITIES:
                self.expected_wait.labels(pool, priority)
            for route in AFFINITY_ROUTES:
                self.affinity_routes.labels(pool, route)
            for direction in REHASH_DIRECTIONS:
                self.affinity_rehash.labels(pool, direction)
            self.pool_ready.labels(pool)

    def prepare_pool(self, pool: str, models: Iterable[str]) -> None:
        """Create a pool's series at zero."""
        for model in models:
            for stage in STAGES:
                self.stage_duration.labels(pool, model, stage)
            self.volume_slices.labels(pool, model)
        for outcome in CACHE_OUTCOMES:
            self.features_cache.labels(pool, outcome)
        for outcome in AFFINITY_OUTCOMES:
            self.affinity.labels(pool, outcome)
        self.features_evictions.labels(pool)
        self.features_bytes.labels(pool).set(0)

    def prepare_arena(self, pool: str, budget_bytes: int) -> None:
        """Create the series of a pool that keeps Features in the node's arena."""
        self.arena_budget.labels(pool).set(budget_bytes)
        self.arena_used.labels(pool).set(0)
        self.arena_full.labels(pool)

    def set_selfcheck(self, model: str, engine: str, ok: bool) -> None:
        """Say how the self-check of one engine of a model ended."""
        self.selfcheck_ok.labels(model, engine).set(int(ok))

    def observe_ready(self, pool: str, ready: bool) -> None:
        """Say whether a pool takes work."""
        self.pool_ready.labels(pool).set(int(ready))

    def observe_request(self, route: str, pool: str, model: str, outcome: str, priority: str, seconds: float) -> None:
        """Count and time one answered request."""
        _series(self.requests, route, pool, model, outcome, priority).inc()
        _series(self.request_duration, route, pool, model, outcome, priority).observe(seconds)

    def observe_shed(self, pool: str, reason: str) -> None:
        """Count one request refused at the door; `reason` one of SHED_REASONS."""
        self.shed.labels(pool, reason).inc()

    def observe_wait(self, pool: str, priority: str, seconds: float) -> None:
        """Time the wait that one request was expected to have, whether it entered or not."""
        _series(self.expected_wait, pool, priority).observe(seconds)

    def observe_deadline(self, stage: str) -> None:
        """Count one deadline that had passed when `stage` (edge, router or pool) looked, or was too short for the work."""
        self.deadline_exceeded.labels(stage).inc()

    def observe_job(self, outcome: str | None) -> None:
        """One volume job begins (None), or ends as one of JOB_OUTCOMES."""
        if outcome is None:
            self.volume_jobs_active.inc()
            return
        self.volume_jobs_active.dec()
        self.volume_jobs.labels(outcome).inc()

    def observe_share(self, pool: str, model: str, digest: str, share: float) -> None:
        """Show a served model with its digest and its share of the new images, 0..1."""
        self.model_share.labels(pool, model, digest).set(share)

    def observe_stages(self, pool: str, model: str, stages: Mapping[str, float]) -> None:
        """Time the stages of one request, seconds each."""
        for stage, seconds in stages.items():
            _series(self.stage_duration, pool, model, stage).observe(seconds)

    def scrape(self) -> bytes:
        """The text exposition: of the whole node in multiprocess mode, else of this process."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            return generate_latest(self.registry)
        _forget_gauges_of_the_dead(Path(folder))
        registry = CollectorRegistry()
        registry.register(_Ours(MultiProcessCollector(None, path=folder)))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


@functools.lru_cache(4096)
def _series(metric: Any, *labels: str) -> Any:
    """The series of a metric that these labels name. The library looks each up anew, which takes longer than to count."""
    return metric.labels(*labels)


@functools.cache
def of_this_process() -> Metrics:
    """The one `Metrics` of this process."""
    return Metrics()


class _Ours:
    """Of what a collector finds, this product's metrics: Ray's processes write theirs into the same folder."""

    def __init__(self, collector: MultiProcessCollector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        """The metric families whose names begin with `medserve_`."""
        return (m for m in self._collector.collect() if m.name.startswith(PREFIX))  # type: ignore[no-untyped-call]


def _forget_gauges_of_the_dead(folder: Path) -> None:
    """Counters outlive their process, live gauges must not: a killed replica cannot say goodbye."""
    for path in folder.glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)\.db$", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            mark_process_dead(int(found[1]), path=str(folder))  # type: ignore[no-untyped-call]
