"""The composition root: settings -> engines -> families -> pools -> router -> fronts. It binds, it decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from serving.board import Board
from serving.edge.desk import Desk
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
from serving.families import registry
from serving.families.family import Family, Tools
from serving.imaging import volumes
from serving.imaging.decode import decode
from serving.manifest import EngineRecord
from serving.pools import census
from serving.pools.local import LocalPoolClient
from serving.pools.pool import Pool
from serving.pools.replica import RayPoolClient
from serving.pools.selfcheck import Check
from serving.pools.selfcheck import once as check_once
from serving.router.admission import Limits, Size, limits
from serving.router.gate import Gate
from serving.router.router import PoolClient, Router
from serving.router.versions import Weights, shares
from serving.served import manifests, pool_names, pool_settings, served_models
from serving.settings import Settings
from serving.telemetry import logs, tracing
from serving.telemetry.metrics import Metrics, of_this_process

ADAPTIVE = "adaptive"
"""The pool with Features. Its engines take one call at a time: what waits behind one router is ahead at the other's door."""
BATCHED_IN_FLIGHT = 32
"""Calls at a time of an engine whose batches Triton makes."""


def open_pool(settings: Settings, name: str, metrics: Metrics, board: Board | None) -> Pool:
    """One replica's pool, in the process that is to run it. `board`: of its node."""
    mine = pool_settings(settings, name)
    chosen = [m for m in manifests(settings) if m.pool == name]
    arena = Arena(settings.features.region, settings.features.ttl_s) if name == ADAPTIVE else None
    if arena is not None:
        metrics.prepare_arena(name, arena.nbytes)
    store = FeaturesStore(arena, settings.features.ttl_s) if arena else None
    key = settings.triton.key.get_secret_value()
    triton = TritonServer(settings.triton.address, settings.triton.call_timeout_s, arena.nbytes if arena else 0, key)
    threads = ThreadPoolExecutor(mine.threads, thread_name_prefix=name)

    def run(work: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, work)

    def engine(spec: EngineSpec, record: EngineRecord) -> Engine:
        one_by_one = bool(spec.reads or spec.writes)
        several = IN_FLIGHT if one_by_one else BATCHED_IN_FLIGHT
        clock = board.clock(f"{record.name}/{record.version}") if board and one_by_one else None
        return Line(triton.engine(spec, record), max(1, several // _sharers(settings)), clock=clock)

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
    return _fronts(settings, clients, metrics, None, census.of)


async def open_together(settings: Settings, handles: dict[str, DeploymentHandle[Any]]) -> Fronts:
    """One router replica with every pool in its own process, warmed up. `handles` is empty."""
    begin_telling(settings)
    settings, metrics = settings.on_this_node(), of_this_process()
    board = _board(settings)
    pools = [open_pool(settings, name, metrics, board) for name in pool_names(settings)]
    for pool in pools:
        await pool.warm_up(settings.triton.start_timeout_s, settings.triton.call_timeout_s)
    return _fronts(settings, {pool.name: LocalPoolClient(pool) for pool in pools}, metrics, board)


def _board(settings: Settings) -> Board | None:
    """This node's; None where it keeps no Features."""
    return Board(settings.features.region) if settings.features.region else None


def _fronts(
    settings: Settings,
    clients: Mapping[str, PoolClient],
    metrics: Metrics,
    board: Board | None,
    size_of: Callable[[str], Size | None] = lambda _: None,
) -> Fronts:
    """The brain and both its fronts. `board`: of the node whose engines all its routers stand before.

    `size_of`: a pool that has engines on several nodes, as it is now.
    """
    metrics.prepare_edge(clients)

    @cache
    def limits_at(pool: str, size: Size | None) -> Limits:
        return limits(pool_settings(settings, pool), len(settings.auth.tokens), size)

    def limits_now(pool: str) -> Limits:
        return limits_at(pool, size_of(pool))

    gates = {}
    for name in clients:
        neighbours = board.row(name) if board and name == ADAPTIVE else None
        gates[name] = Gate(name, limits_now(name), neighbours, partial(limits_now, name))
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
    noting = asyncio.create_task(Desk(brain, settings, metrics).keep_noting())
    return Fronts(http, GrpcFront(brain, settings, observer=metrics, jobs=jobs), weigh, noting)


def open_replica(settings: Settings, name: str) -> Pool:
    """One replica of a pool that is a deployment of its own, in its process."""
    begin_telling(settings)
    settings = settings.on_this_node()
    return open_pool(settings, name, of_this_process(), _board(settings))


def begin_telling(settings: Settings) -> None:
    """The logs and traces of this process, as the settings say. Raises SetupError."""
    logs.begin(settings)
    tracing.begin(settings.tracing)
