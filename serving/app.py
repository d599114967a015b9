"""The composition root: settings -> engines -> families -> pools -> router -> fronts. It binds, it decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from serving.edge.fronts import Fronts
from serving.edge.grpc import GrpcFront
from serving.edge.http import build_app
from serving.embeddings.arena import SLOT_BYTES, Arena
from serving.embeddings.store import FeaturesStore
from serving.engines.triton import TritonServer
from serving.errors import SetupError
from serving.families import registry
from serving.families.family import Tools
from serving.imaging.decode import decode
from serving.manifest import Manifest, read_all
from serving.pools.ingress import Ingress
from serving.pools.pool import Pool
from serving.pools.replica import PoolReplica, RayPoolClient
from serving.router import dispatch
from serving.router.admission import Gate
from serving.router.brain import ServedModel
from serving.router.router import Router
from serving.settings import PoolSettings, Settings
from serving.telemetry.metrics import Metrics

POOLS = ("adaptive", "contrastive")
SPARE_SLOTS = 8
"""For Features that were evicted while decodes still read them."""
HASH_ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


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
        prompts = dispatch.VISUAL if manifest.pool == "adaptive" else (*dispatch.TEXT, "image")
        limits = registry.FAMILIES[manifest.family].limits(manifest)
        lines.append(ServedModel(manifest, prompts, limits))
    return tuple(lines)


def engine_names(settings: Settings) -> tuple[str, ...]:
    """Every engine that Triton must load, once each."""
    return tuple(sorted({e.name for m in manifests(settings) for parts in m.engines.values() for e in parts}))


def pool_settings(settings: Settings, name: str) -> PoolSettings:
    """The branch of one pool."""
    found: PoolSettings = getattr(settings.pools, name)
    return found


def open_pool(settings: Settings, name: str) -> Pool:
    """One replica's pool, in its own process."""
    mine = pool_settings(settings, name)
    arena = Arena(f"features_{name}", mine.features_bytes // SLOT_BYTES + SPARE_SLOTS) if name == "adaptive" else None
    triton = TritonServer(settings.triton.address, settings.triton.call_timeout_s, arena)
    threads = ThreadPoolExecutor(mine.threads, thread_name_prefix=name)
    store = FeaturesStore(mine.features_bytes, mine.features_ttl_s)
    metrics = Metrics()

    def run(work: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, work)

    tools = Tools(triton.engine, partial(decode, limits=settings.limits), run, store)
    if arena is not None:
        tools = replace(tools, place=arena.place)
    chosen = [m for m in manifests(settings) if m.pool == name]
    families = {m.model: registry.FAMILIES[m.family].open(m, tools) for m in chosen}
    engines = sorted({(e.name, e.version) for m in chosen for parts in m.engines.values() for e in parts})

    async def backend_ready() -> bool:
        return all(await asyncio.gather(*(triton.model_ready(engine, version) for engine, version in engines)))

    return Pool(name, families, backend_ready, metrics, partial(_publish, metrics, name, store))


def _publish(metrics: Metrics, pool: str, store: FeaturesStore) -> None:
    """The store's state as metrics. The counter takes what was evicted since the last time."""
    metrics.features_bytes.labels(pool).set(store.stats.bytes)
    fresh = store.stats.take_evictions()
    if fresh:
        metrics.features_evictions.labels(pool).inc(fresh)


def open_fronts(settings: Settings, handles: dict[str, DeploymentHandle[Any]]) -> Fronts:
    """One router replica's brain and both its fronts, in its own process."""
    metrics = Metrics()
    metrics.prepare_edge(handles)
    gates = {}
    for name in handles:
        mine = pool_settings(settings, name)
        gates[name] = Gate(name, mine.max_ongoing * mine.replicas, mine.max_queued)
    clients = {name: RayPoolClient(name, handle) for name, handle in handles.items()}
    brain = Router(clients, gates, served_models(settings), metrics)
    http = build_app(brain, settings, observer=metrics, metrics=metrics.scrape, echo_request_id=False)
    return Fronts(http, GrpcFront(brain, settings, observer=metrics))


def build_application(settings: Settings) -> serve.Application:
    """The Ray Serve application: the ingress over one deployment a pool that has models."""
    quiet = LoggingConfig(enable_access_log=False)
    pools = {}
    for name in sorted({m.pool for m in manifests(settings)}):
        mine = pool_settings(settings, name)
        pools[name] = (
            _deployment(PoolReplica)
            .options(
                name=name,
                num_replicas=mine.replicas,
                max_ongoing_requests=mine.max_ongoing,
                max_queued_requests=mine.max_queued or -1,
                ray_actor_options={"num_cpus": 0},
                request_router_config=RequestRouterConfig(request_router_class=HASH_ROUTER),  # type: ignore[arg-type]
                health_check_period_s=2,
                graceful_shutdown_timeout_s=10,
                logging_config=quiet,
            )
            .bind(partial(open_pool, settings, name), settings.triton.start_timeout_s)
        )
    options = {"num_cpus": 0}
    ingress = _deployment(Ingress).options(max_ongoing_requests=1024, ray_actor_options=options, logging_config=quiet)
    return ingress.bind(partial(open_fronts, settings), **pools)


def _deployment(decorated: Any) -> serve.Deployment:
    """What `serve.deployment` made of a class; its types say that the class is unchanged."""
    assert isinstance(decorated, serve.Deployment)
    return decorated
