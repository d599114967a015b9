"""Take a Ray node out of service without losing a request: the preStop hook of a pod, or by hand before a node goes.

Ray Serve moves the replicas of a node that is draining: it starts others elsewhere where there is room, sends new requests
there, and stops the old ones when they have answered what they hold. Where there is no room, they serve for most of the time
there is and use the rest to finish.

Serve stops a replica at once, replacement or not, when the node's deadline is nearer than the replica's graceful shutdown may
take (`ray/serve/_private/deployment_state.py`, Ray 2.60). So Ray is told a deadline that much later than the node goes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from serving.errors import SetupError

POLL_S = 0.5
SERVING = 0.75
"""So much of the time a replica serves on while its replacement starts; in what is left it finishes what it holds."""
REASON = "medserve node drain"


def drain(address: str, node_id: str, timeout_s: float, say: Callable[[str], None]) -> None:
    """Drain a node and wait until no replica is left on it.

    `address`: of the GCS, "auto" for this node's; `node_id`: hex, "" for this node. Raises SetupError where Ray refuses, or a
    replica is still there after `timeout_s` seconds.
    """
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="serve")
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise SetupError(f"no Ray at {address}: {str(exc).splitlines()[0]}") from exc
    try:
        node = node_id or ray.get_runtime_context().get_node_id()
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        if node not in {each["NodeID"] for each in nodes if each["Alive"]}:
            raise SetupError(f"Ray has no living node {node}")
        now = time.time()
        until, deadline_s = now + timeout_s, now + SERVING * timeout_s + patience_s(_details())
        gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
        accepted, why = gcs.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, REASON, int(deadline_s * 1000))
        if not accepted:
            raise SetupError(f"Ray does not drain node {node}: {why}")
        left = None
        while (count := _replicas_on(node)) and time.time() < until:
            if count != left:
                say(f"node {node[:8]}: {count} replicas left")
            left = count
            time.sleep(POLL_S)
        if count:
            raise SetupError(f"node {node[:8]}: {count} replicas are still there after {timeout_s:.0f} s")
        say(f"node {node[:8]} is drained")
    finally:
        ray.shutdown()


def patience_s(details: Any) -> float:
    """The longest graceful shutdown of any deployment, seconds. `details`: Ray Serve's, of all applications."""
    found = (each["deployment_config"]["graceful_shutdown_timeout_s"] for each in _deployments(details))
    return max(found, default=0.0)


def _replicas_on(node: str) -> int:
    """Replicas of any application that Ray Serve still has on a node."""
    return sum(replica.get("node_id") == node for each in _deployments(_details()) for replica in each["replicas"])


def _deployments(details: Any) -> list[Any]:
    return [each for application in details["applications"].values() for each in application["deployments"].values()]


def _details() -> Any:
    """What runs on Ray Serve; nothing where it does not run."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return {"applications": {}} if client is None else client.get_serve_details()
