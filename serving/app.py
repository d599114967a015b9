"""The composition root: settings -> engines -> families -> pools -> router -> fronts. It binds, it decides nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from ray import serve
from ray.serve.config import RequestRouterConfig
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
from serving.router import dispatch
from serving.router.admission import limits
from serving.router.brain import ServedModel
from serving.router.gate import Gate
from serving.router.router import PoolClient, Router
from serving.settings import PoolSettings, Settings
from serving.telemetry.metrics import Metrics, of_this_process

QUIET = LoggingConfig(enable_access_log=False)
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
    store = FeaturesStore(arena, settings.features.ttl_s) if arena else None
    triton = TritonServer(settings.triton.address, settings.triton.call_timeout_s, arena.nbytes if arena else 0)
    threads = ThreadPoolExecutor(mine.threads, thread_name_prefix=name)

    def run(work: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, work)

    def engine(spec: EngineSpec, record: EngineRecord) -> Engine:
        return Line(triton.engine(spec, record), IN_FLIGHT if spec.reads or spec.writes else BATCHED_IN_FLIGHT)

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

    return Pool(name, families, backend_ready, metrics, partial(_publish, metrics, name, arena, vectors))


def _publish(metrics: Metrics, pool: str, arena: Arena | None, vectors: VectorStore) -> None:
    """What is held, and what this replica dropped since the last time."""
    held, gone = vectors.stats.bytes, vectors.stats.take_evictions()
    if arena is not None:
        held, gone = held + arena.used_bytes(), gone + arena.evictions
        arena.evictions = 0
    metrics.features_bytes.labels(pool).set(held)
    if gone:
        metrics.features_evictions.labels(pool).inc(gone)


async def open_apart(settings: Settings, handles: dict[str, DeploymentHandle[Any]]) -> Fronts:
    """One router replica before pools that are deployments of their own."""
    clients = {name: RayPoolClient(name, handle) for name, handle in handles.items()}
    return _fronts(settings, clients, of_this_process())


async def open_together(settings: Settings, handles: dict[str, DeploymentHandle[Any]]) -> Fronts:
    """One router replica with every pool in its own process, warmed up. `handles` is empty."""
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
    brain = Router(clients, gates, served_models(settings), metrics)
    jobs = Jobs(brain, settings.volumes, metrics)
    http = build_app(brain, settings, observer=metrics, metrics=metrics.scrape, echo_request_id=False, jobs=jobs)
    return Fronts(http, GrpcFront(brain, settings, observer=metrics, jobs=jobs))


def build_application(settings: Settings) -> serve.Application:
    """The Ray Serve application: the ingress with the pools inside it, or over one deployment a pool that has models."""
    ingress = _deployment(Ingress).options(
        num_replicas=settings.router.replicas,
        max_ongoing_requests=1024,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=2,
        logging_config=QUIET,
    )
    if settings.shape == "together":
        return ingress.bind(partial(open_together, settings))
    return ingress.bind(partial(open_apart, settings), **{name: _pool(settings, name) for name in pool_names(settings)})


def _pool(settings: Settings, name: str) -> serve.Application:
    mine = pool_settings(settings, name)
    return (
        _deployment(PoolReplica)
        .options(
            name=name,
            num_replicas=mine.replicas,
            max_ongoing_requests=mine.max_ongoing,
            max_queued_requests=mine.max_queued or -1,
            ray_actor_options={"num_cpus": 0, "resources": mine.resources},
            request_router_config=RequestRouterConfig(
                request_router_class=HASH_ROUTER,  # type: ignore[arg-type]
                request_router_kwargs={"num_fallback_replicas": FALLBACK_REPLICAS},
            ),
            health_check_period_s=2,
            graceful_shutdown_timeout_s=10,
            logging_config=QUIET,
        )
        .bind(partial(_open_replica, settings, name), settings.triton.start_timeout_s)
    )


def _open_replica(settings: Settings, name: str) -> Pool:
    return open_pool(settings.on_this_node(), name, of_this_process())


def _deployment(decorated: Any) -> serve.Deployment:
    """What `serve.deployment` made of a class; its types say that the class is unchanged."""
    assert isinstance(decorated, serve.Deployment)
    return decorated
