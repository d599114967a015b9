"""The composition root: settings -> engines -> families -> pools -> router -> fronts. It binds, it decides nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from serving import slots
from serving.domain.volume import SegmentVolume
from serving.edge.fronts import Fronts
from serving.edge.grpc import GrpcFront
from serving.edge.http import build_app
from serving.edge.jobs import Jobs
from serving.embeddings.arena import Arena
from serving.embeddings.store import FeaturesStore
from serving.embeddings.vectors import VectorStore
from serving.engines import selfcheck
from serving.engines.engine import Engine, EngineSpec
from serving.engines.line import IN_FLIGHT, Line
from serving.engines.triton import TritonServer
from serving.errors import SetupError
from serving.families import registry
from serving.families.family import Family, Tools
from serving.imaging import volumes
from serving.imaging.decode import decode
from serving.manifest import EngineRecord, Manifest, read_all
from serving.pools.affinity import FALLBACK_REPLICAS
from serving.pools.ingress import Ingress
from serving.pools.local import LocalPoolClient
from serving.pools.pool import Pool
from serving.pools.replica import PoolReplica, RayPoolClient
from serving.pools.selfcheck import Check
from serving.pools.selfcheck import once as check_once
from serving.router import dispatch
from serving.router.admission import limits
from serving.router.brain import ServedModel
from serving.router.gate import Gate
from serving.router.router import PoolClient, Router
from serving.router.versions import Weights, shares
from serving.settings import PoolSettings, Settings
from serving.telemetry import logs, tracing
from serving.telemetry.metrics import Metrics, of_this_process

QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""Ray Serve makes a record of every request even where its access log is off, unless the level spares it that."""
BATCHED_IN_FLIGHT = 32
"""Calls at a time of an engine whose batches Triton makes."""
HASH_ROUTER = "serving.pools.affinity:AffinityRouter"


def manifests(settings: Settings) -> tuple[Manifest, ...]:
    """The built models that are served: those with trained weights first. Raises SetupError."""
    found = read_all(settings.repository.path, settings.repository.models)
    for manifest in found:
        if manifest.family not in registry.FAMILIES:
            raise SetupError(f"model {manifest.model} is of family {manifest.family}, which this version does not know")
    return tuple(sorted(found, key=lambda m: (m.demonstration, m.model)))


def served_models(settings: Settings) -> tuple[ServedModel, ...]:
    """The lines of `/v1/models`."""
    lines = []
    for manifest in manifests(settings):
        declared = registry.FAMILIES[manifest.family]
        prompts: tuple[str, ...] = dispatch.VISUAL if manifest.pool == "adaptive" else (*dispatch.TEXT, "image")
        if SegmentVolume in declared.tasks:
            # A model that takes nothing but volumes is told by names what to find in them.
            prompts = (*prompts, dispatch.VOLUME) if len(declared.tasks) > 1 else (dispatch.CLASSES,)
        lines.append(ServedModel(manifest, prompts, declared.limits(manifest)))
    return tuple(lines)


def engine_names(settings: Settings) -> tuple[str, ...]:
    """Every engine that Triton must load, once each."""
    return tuple(sorted({e.name for m in manifests(settings) for parts in m.engines.values() for e in parts}))


def pool_names(settings: Settings) -> tuple[str, ...]:
    """The pools that have models."""
    return tuple(sorted({m.pool for m in manifests(settings)}))


def pool_settings(settings: Settings, name: str) -> PoolSettings:
    """The branch of one pool."""
    found: PoolSettings = getattr(settings.pools, name)
    return found


def slot_bytes(settings: Settings) -> int:
    """Room for one image's Features of any model that keeps some, in whole pages."""
    most = slots.PAGE
    for manifest in manifests(settings):
        for spec in registry.FAMILIES[manifest.family].specs(manifest).values():
            sizes = [math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in spec.writes]
            most = max(most, slots.offsets(sizes)[-1])
    return -(-most // slots.PAGE) * slots.PAGE


def open_pool(settings: Settings, name: str, metrics: Metrics) -> Pool:
    """One replica's pool, in the process that is to run it."""
    mine = pool_settings(settings, name)
    chosen = [m for m in manifests(settings) if m.pool == name]
    arena = Arena(settings.features.region, settings.features.ttl_s) if name == "adaptive" else None
    if arena is not None:
        metrics.prepare_arena(name, arena.nbytes)
    store = FeaturesStore(arena, settings.features.ttl_s) if arena else None
    key = settings.triton.key.get_secret_value()
    triton = TritonServer(settings.triton.address, settings.triton.call_timeout_s, arena.nbytes if arena else 0, key)
    threads = ThreadPoolExecutor(mine.threads, thread_name_prefix=name)

    def run(work: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, work)

    def engine(spec: EngineSpec, record: EngineRecord) -> Engine:
        several = IN_FLIGHT if spec.reads or spec.writes else BATCHED_IN_FLIGHT
        return Line(triton.engine(spec, record), max(1, several // _sharers(settings)))

    vectors = VectorStore(mine.vectors_bytes, settings.features.ttl_s)
    tools = Tools(
        engine,
        partial(decode, limits=settings.limits),
        run,
        store,
        vectors,
        partial(volumes.read, limits=settings.limits, budget=settings.volumes),
        settings.volumes.kept_features_bytes,
        settings.support_sets(),
        lambda: families,
    )
    families: dict[str, Family] = {}
    families |= {m.model: registry.FAMILIES[m.family].open(m, tools) for m in chosen}
    engines = sorted({(e.name, e.version) for m in chosen for parts in m.engines.values() for e in parts})

    async def backend_ready() -> bool:
        return all(await asyncio.gather(*(triton.model_ready(engine, version) for engine, version in engines)))

    checks = [
        Check(m.model, record.name, triton.engine(specs[part], record), _selfcheck_file(settings, record))
        for m in chosen
        for specs in (registry.FAMILIES[m.family].specs(m),)
        for part, records in m.engines.items()
        for record in records
    ]
    publish = partial(_publish, metrics, name, arena, vectors)
    self_check = partial(check_once, checks, arena, triton, settings.features.region)
    return Pool(name, families, backend_ready, metrics, publish, self_check)


def _selfcheck_file(settings: Settings, record: EngineRecord) -> Path:
    return settings.repository.path / record.name / record.version / selfcheck.FILE


def _sharers(settings: Settings) -> int:
    """How many replicas of this node stand before one engine, and divide its places between their lines."""
    return settings.router.replicas if settings.shape == "together" else 1


def _publish(metrics: Metrics, pool: str, arena: Arena | None, vectors: VectorStore) -> None:
    """What is held, and what this replica dropped since the last time."""
    held, gone = vectors.stats.bytes, vectors.stats.take_evictions()
    if arena is not None:
        used = arena.used_bytes()
        held, gone = held + used, gone + arena.evictions
        metrics.arena_used.labels(pool).set(used)
        if arena.refusals:
            metrics.arena_full.labels(pool).inc(arena.refusals)
        arena.evictions = arena.refusals = 0
    metrics.features_bytes.labels(pool).set(held)
    if gone:
        metrics.features_evictions.labels(pool).inc(gone)


async def open_apart(settings: Settings, handles: dict[str, DeploymentHandle[Any]]) -> Fronts:
    """One router replica before pools that are deployments of their own."""
    begin_telling(settings)
    metrics = of_this_process()
    clients = {name: RayPoolClient(name, handle, metrics.resent.labels(name).inc) for name, handle in handles.items()}
    return _fronts(settings, clients, metrics)


async def open_together(settings: Settings, handles: dict[str, DeploymentHandle[Any]]) -> Fronts:
    """One router replica with every pool in its own process, warmed up. `handles` is empty."""
    begin_telling(settings)
    settings, metrics = settings.on_this_node(), of_this_process()
    pools = [open_pool(settings, name, metrics) for name in pool_names(settings)]
    for pool in pools:
        await pool.warm_up(settings.triton.start_timeout_s)
    return _fronts(settings, {pool.name: LocalPoolClient(pool) for pool in pools}, metrics)


def _fronts(settings: Settings, clients: Mapping[str, PoolClient], metrics: Metrics) -> Fronts:
    """The brain and both its fronts."""
    metrics.prepare_edge(clients)
    gates = {}
    for name in clients:
        gates[name] = Gate(name, limits(pool_settings(settings, name), len(settings.auth.tokens)))
    served = served_models(settings)
    records = {model.manifest.model: model.manifest for model in served}
    brain = Router(clients, gates, served, metrics)
    jobs = Jobs(brain, settings.volumes, metrics)
    http = build_app(brain, settings, observer=metrics, metrics=metrics.scrape, echo_request_id=False, jobs=jobs)

    def weigh(weights: Weights) -> None:
        brain.weigh(weights)
        for name, share in shares(served, weights).items():
            metrics.observe_share(records[name].pool, name, records[name].digest, share)

    weigh(settings.versions)
    return Fronts(http, GrpcFront(brain, settings, observer=metrics, jobs=jobs), weigh)


def code_version(settings: Settings) -> str:
    """What a replica cannot change without a restart: the code, the built models, most settings.

    A deployment whose version stays is changed in place by Ray Serve: the numbers of replicas and the weights of versions.
    """
    lasting = settings.model_dump(mode="json", exclude={"versions", "router"})
    for pool in lasting["pools"].values():
        for name in ("replicas", "autoscale", "surge_percent"):
            del pool[name]
    models = [manifest.model_dump(mode="json") for manifest in manifests(settings)]
    found = hashlib.sha256(json.dumps([lasting, models], sort_keys=True).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def build_application(settings: Settings) -> serve.Application:
    """The Ray Serve application: the ingress with the pools inside it, or over one deployment a pool that has models."""
    ingress = _deployment(Ingress).options(
        num_replicas=settings.router.replicas,
        max_ongoing_requests=1024,
        ray_actor_options={"num_cpus": 0, "resources": settings.router.resources},
        health_check_period_s=2,
        max_surge_percent=0 if settings.router.resources else 100,
        graceful_shutdown_timeout_s=_patience_s(settings),
        logging_config=QUIET,
        user_config={"versions": settings.versions},
    )
    ingress = _versioned(ingress, settings)
    if settings.shape == "together":
        return ingress.bind(partial(open_together, settings))
    return ingress.bind(partial(open_apart, settings), **{name: _pool(settings, name) for name in pool_names(settings)})


def _pool(settings: Settings, name: str) -> serve.Application:
    mine = pool_settings(settings, name)
    pool = _deployment(PoolReplica).options(
        name=name,
        **_scale(mine),
        max_surge_percent=mine.surge_percent,
        max_ongoing_requests=mine.max_ongoing,
        max_queued_requests=mine.max_queued or -1,
        ray_actor_options={"num_cpus": 0, "resources": mine.resources},
        request_router_config=RequestRouterConfig(
            request_router_class=HASH_ROUTER,  # type: ignore[arg-type]
            request_router_kwargs={"num_fallback_replicas": FALLBACK_REPLICAS},
        ),
        health_check_period_s=2,
        graceful_shutdown_timeout_s=_patience_s(settings),
        logging_config=QUIET,
    )
    return _versioned(pool, settings).bind(partial(_open_replica, settings, name), settings.triton.start_timeout_s)


def _patience_s(settings: Settings) -> float:
    """How long a replica that is replaced may finish what it holds: on a cluster, as long as any request may take.

    On one machine, where nothing is replaced, this is how long `medserve up` may take to stop.
    """
    return settings.limits.max_deadline_s if settings.shape == "apart" else 20.0


def begin_telling(settings: Settings) -> None:
    """The logs and traces of this process, as the settings say. Raises SetupError."""
    logs.begin(settings)
    tracing.begin(settings.tracing)


def _versioned(deployment: serve.Deployment, settings: Settings) -> serve.Deployment:
    """With a code version of ours. Ray makes one up at each `serve.run` and would restart every replica for a weight."""
    return deployment.options(version=code_version(settings), _internal=True)


def _scale(mine: PoolSettings) -> dict[str, Any]:
    """A fixed number of replicas, or what Ray Serve's autoscaler is told."""
    scaling = mine.autoscale
    if scaling.max_replicas == 0:
        return {"num_replicas": mine.replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=mine.replicas,
            max_replicas=max(scaling.max_replicas, mine.replicas),
            target_ongoing_requests=scaling.target_ongoing,
            upscale_delay_s=scaling.up_after_s,
            downscale_delay_s=scaling.down_after_s,
            metrics_interval_s=min(2.0, scaling.up_after_s),
            look_back_period_s=max(2.0, scaling.up_after_s),
        )
    }


def _open_replica(settings: Settings, name: str) -> Pool:
    begin_telling(settings)
    return open_pool(settings.on_this_node(), name, of_this_process())


def _deployment(decorated: Any) -> serve.Deployment:
    """What `serve.deployment` made of a class; its types say that the class is unchanged."""
    assert isinstance(decorated, serve.Deployment)
    return decorated
