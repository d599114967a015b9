"""The Ray Serve application: its deployments, how many replicas each has, and when a replica must be replaced."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from serving.app import open_apart, open_replica, open_together
from serving.pools.affinity import FALLBACK_REPLICAS
from serving.pools.ingress import Ingress
from serving.pools.replica import PoolReplica
from serving.served import manifests, pool_names, pool_settings
from serving.settings import PoolSettings, Settings

LOOK_BACK = 0.4
"""The mean is taken over so much of the delay before more replicas: a burst that is over must not look as if it lasted."""
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""Ray Serve makes a record of every request even where its access log is off, unless the level spares it that."""
HASH_ROUTER = "serving.pools.affinity:AffinityRouter"
SCALING = "serving.pools.scaling:band"
TARGET_ONGOING = 1.5
"""Requests inside and waiting for each that a node's engines take at a time: see `AutoscaleSettings`."""


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
        ray_actor_options={"num_cpus": 0, "resources": settings.router.resources, **_behind(settings)},
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
        ray_actor_options={"num_cpus": 0, "resources": mine.resources, **_behind(settings)},
        request_router_config=RequestRouterConfig(
            request_router_class=HASH_ROUTER,  # type: ignore[arg-type]
            request_router_kwargs={"num_fallback_replicas": FALLBACK_REPLICAS},
        ),
        health_check_period_s=2,
        graceful_shutdown_timeout_s=_patience_s(settings),
        logging_config=QUIET,
    )
    mine_s = settings.triton.start_timeout_s, settings.triton.call_timeout_s
    return _versioned(pool, settings).bind(partial(open_replica, settings, name), *mine_s)


def _behind(settings: Settings) -> dict[str, Any]:
    """On a cluster, a process that is to be a replica starts behind those that serve (`pools.priority` raises it again).

    Ray itself lowers a worker only when Python and Ray are imported, two seconds of a core later. What Ray runs before it
    (`setup_worker.py`, most of a second of a core) keeps the raylet's own priority.
    """
    if settings.shape == "together":
        return {}
    return {"runtime_env": {"py_executable": f"nice -n 19 {shlex.quote(sys.executable)}"}}


def _patience_s(settings: Settings) -> float:
    """How long a replica that is replaced may finish what it holds: on a cluster, as long as any request may take.

    On one machine, where nothing is replaced, this is how long `medserve up` may take to stop.
    """
    return settings.limits.max_deadline_s if settings.shape == "apart" else 20.0


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
            target_ongoing_requests=scaling.target_ongoing or TARGET_ONGOING * mine.parallel,
            upscale_delay_s=scaling.up_after_s,
            downscale_delay_s=scaling.down_after_s,
            metrics_interval_s=min(2.0, scaling.up_after_s),
            look_back_period_s=max(2.0, LOOK_BACK * scaling.up_after_s),
            policy=AutoscalingPolicy(policy_function=SCALING),  # type: ignore[no-untyped-call]
        )
    }


def _deployment(decorated: Any) -> serve.Deployment:
    """What `serve.deployment` made of a class; its types say that the class is unchanged."""
    assert isinstance(decorated, serve.Deployment)
    return decorated
