"""Ray's consistent-hash router, with its decisions counted: which prompts came home, which fell back, when the ring changed.

Fallback is bounded: where the home replica is full, a request tries this many of its successors on the ring, then waits. A
prompt by handle falls back within its node only, where the same arena is: a successor on another node could but send it away.
"""

from __future__ import annotations

from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from serving.domain.image import ImageHandle
from serving.domain.request import Request, images_of
from serving.telemetry.metrics import of_this_process

FALLBACK_REPLICAS = 2


class AffinityRouter(ConsistentHashRouter):
    """Ray makes one in each router replica, for each pool. It leans on Ray 2.60's ring; an integration test holds it there."""

    @property
    def max_num_routing_tasks(self) -> int:
        """Ray's cap, not two a replica: the prompts that wait for one busy home must not hold up those of another."""
        return int(self.max_num_routing_tasks_cap)

    def update_replicas(self, replicas: list[Any]) -> None:
        """Ray tells which replicas there are."""
        before = self._replica_set_snapshot
        super().update_replicas(replicas)
        after = self._replica_set_snapshot
        if before and after != before:
            direction = "up" if len(after) > len(before) else "down" if len(after) < len(before) else "swap"
            of_this_process().affinity_rehash.labels(self._deployment_id.name, direction).inc()

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Ray asks where to try, in order: one replica a rank."""
        ranks: list[list[Any]] = await super().choose_replicas(candidate_replicas, pending_request)
        if pending_request is None or not _by_handle(pending_request.args):
            return ranks
        return [rank for rank in ranks if rank[0].node_id == ranks[0][0].node_id]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Ray tells where a request went."""
        session = pending_request.metadata.session_id
        if session:
            ranked = self._lookup_ranked_replicas(session)
            outcome = "home" if ranked[:1] == [replica_id] else "fallback"
            of_this_process().affinity_routes.labels(self._deployment_id.name, outcome).inc()

    def _get_pending_request_matching_internal_request_id(self, request_metadata: Any = None) -> Any:
        """Ray looks up which request a chosen replica is for, by an id that all calls of one gRPC session share: of several in
        flight it would find one, and leave the others waiting for ever. Each call's metadata is an object of its own."""
        waiting = self._pending_requests_to_fulfill
        return next((each for each in waiting if each.metadata is request_metadata and not each.future.done()), None)


def _by_handle(args: Any) -> bool:
    """Whether the arguments of a call are a request whose image is a handle."""
    if not args or not isinstance(args[0], Request):
        return False
    return any(isinstance(image, ImageHandle) for image in images_of(args[0].task)[:1])
