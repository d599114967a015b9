"""Ray's consistent-hash router over nodes, with its decisions counted: what came home, what fell back, when the ring changed.

A place on the ring belongs to a node, whose replicas share one arena: a replica that is replaced there (an upgrade, a crash)
moves no image. Fallback is bounded: where the home replica is full, a request tries so many successors, then waits. A prompt
by handle falls back within its node only, where the same arena is: a successor elsewhere could but send it away.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter, _hash_bytes

from serving.domain.image import ImageHandle
from serving.domain.request import Request, images_of
from serving.pools import census
from serving.telemetry.metrics import of_this_process

FALLBACK_REPLICAS = 2


class AffinityRouter(ConsistentHashRouter):
    """Ray makes one in each router replica, for each pool. It leans on Ray 2.60's ring; an integration test holds it there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._members: dict[str, list[Any]] = {}
        self._ring_nodes: list[str] = []

    @property
    def max_num_routing_tasks(self) -> int:
        """Ray's cap, not two a replica: the prompts that wait for one busy home must not hold up those of another."""
        return int(self.max_num_routing_tasks_cap)

    def update_replicas(self, replicas: list[Any]) -> None:
        """Ray tells which replicas there are."""
        before = frozenset(self._members)
        super().update_replicas(replicas)
        after = frozenset(self._members)
        census.note(self._deployment_id.name, len(after), len(replicas))
        if before and after != before:
            direction = "up" if len(after) > len(before) else "down" if len(after) < len(before) else "swap"
            of_this_process().affinity_rehash.labels(self._deployment_id.name, direction).inc()

    def _rebuild_ring(self, new_snapshot: frozenset[Any]) -> None:
        members: dict[str, list[Any]] = {}
        for replica_id in sorted(new_snapshot, key=lambda each: each.unique_id):
            members.setdefault(str(self._replicas[replica_id].node_id), []).append(replica_id)
        places = sorted((_hash_bytes(f"{node}:{n}".encode()), node) for node in members for n in range(self._num_virtual_nodes))
        self._members = members
        self._ring_hashes = [place for place, _ in places]
        self._ring_nodes = [node for _, node in places]
        self._replica_set_snapshot = new_snapshot

    def _nodes_from(self, routing_key: str) -> Iterator[str]:
        """Every node once: the key's home, then its successors on the ring."""
        start, seen = bisect.bisect_right(self._ring_hashes, _hash_bytes(routing_key.encode())), set()
        for offset in range(len(self._ring_nodes)):
            node = self._ring_nodes[(start + offset) % len(self._ring_nodes)]
            if node not in seen:
                seen.add(node)
                yield node

    def _lookup_ranked_replicas(self, routing_key: str) -> list[Any]:
        """Replicas of the home node, leaving a rank for a successor, then one replica of each node that follows."""

        def ordered(node: str) -> list[Any]:
            return sorted(self._members[node], key=lambda each: _hash_bytes(f"{routing_key}:{each.unique_id}".encode()))

        ranked: list[Any] = []
        for node in self._nodes_from(routing_key):
            ranked += ordered(node)[:1] if ranked else ordered(node)[: max(self._num_fallback_replicas, 1)]
        return ranked[: 1 + self._num_fallback_replicas]

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
