"""May it enter? Decided at the door from the work that is inside, with an honest time to come back.

Nothing here looks at a clock or waits: times come in as arguments, and what goes out is a permit or a refusal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.domain.request import Priority
from serving.errors import Fault, Kind
from serving.router.work import Work
from serving.settings import PoolSettings


@dataclass(frozen=True, eq=False)
class Permit:
    """The right to be inside one pool, for one request from `Gate.enter` to `Gate.leave`.

    `service_s`: how long the pool's engines are expected to work on it. `entered_s`: by the caller's clock. `image`: the
    affinity key of what it is about, or empty.
    """

    pool: str
    work: Work
    priority: Priority
    tenant: str
    service_s: float
    entered_s: float
    image: str = ""


@dataclass(frozen=True)
class Size:
    """How large a pool is now: nodes, each with engines of its own, and replicas on them."""

    nodes: int = 1
    replicas: int = 1


@dataclass(frozen=True)
class Limits:
    """What a gate allows.

    `parallel`: requests that the pool's engines work on at a time. `places`: requests inside at most, `bulk_places` of them
    bulk. `max_wait_s`, `max_bulk_wait_s`: how long a request may wait, beyond a service time of its own; `max_click_wait_s`:
    an interactive one that encodes nothing. `flood_waits`: such a one, in service times of its own, while a flood lasts.
    `tenant_share`: the part of the places and of the wait that one tenant may fill, 0..1.
    """

    parallel: int
    places: int
    bulk_places: int
    max_wait_s: float
    max_bulk_wait_s: float
    tenant_share: float = 1.0
    max_click_wait_s: float = math.inf
    flood_waits: float = math.inf


@dataclass(frozen=True)
class Load:
    """What a newcomer finds at the door, and what it brings.

    `ahead_s`: the wait for everything that goes before it. `begun_s`: for less urgent work that has begun and is not
    interrupted. `service_s`: its own expected service, with the rest of its image's encode where one is under way; that part
    is `shared_s`. `next_s`: until the next place is free. `inside`: requests, of its priority alone where it is bulk.
    `tenant_ahead_s`, `tenant_inside`: its own tenant's part of these. `click`: it encodes nothing; `flood`: of its kind of
    work more is asked for than can be done, and has been for a while (`router.demand`).
    """

    ahead_s: float
    begun_s: float
    service_s: float
    next_s: float
    inside: int
    tenant_ahead_s: float
    tenant_inside: int
    click: bool = False
    flood: bool = False
    shared_s: float = 0.0

    @property
    def least_s(self) -> float:
        """What it takes where nobody is before it and an encode of its image that is under way is done."""
        return self.service_s - self.shared_s


@dataclass(frozen=True)
class Refusal:
    """Why not now, and when it will be different. `reason`: one of `telemetry.metrics.SHED_REASONS`."""

    reason: str
    retry_after_s: float

    def fault(self, pool: str) -> Fault:
        """What the client is told."""
        kind = Kind.OVER_QUOTA if self.reason == "over_quota" else Kind.POOL_FULL
        return Fault(kind, _MESSAGES[self.reason].format(pool=pool), retry_after_s=self.retry_after_s)


@dataclass(frozen=True)
class TooShort:
    """The work alone outlasts the deadline, however short the line is: a later try is no better. `least_s`: the work."""

    least_s: float

    def fault(self, pool: str) -> Fault:
        """What the client is told."""
        takes = f"the {pool} pool takes about {max(1, round(1000 * self.least_s))} ms for such a request"
        return Fault(Kind.DEADLINE, f"{takes}, more than its deadline leaves", param="deadline")


_MESSAGES = {
    "deadline": "the {pool} pool cannot answer within the deadline now: try again later, or allow more time",
    "wait": "the {pool} pool has more work than it can do soon: try again later",
    "pool_full": "the {pool} pool is full: try again later",
    "over_quota": "this tenant has its share of the {pool} pool: send less at a time",
}


def limits(pool: PoolSettings, tenants: int, size: Size | None = None) -> Limits:
    """The limits of a pool's gate. `tenants`: how many are configured; a share is kept free for others from two on.

    `size`: of a pool that grows and shrinks; else all its replicas are before the engines of one node.
    """
    share = pool.max_tenant_share if tenants > 1 else 1.0
    size = size or Size(replicas=pool.replicas)
    return Limits(
        parallel=pool.parallel * size.nodes,
        places=pool.max_ongoing * size.replicas + pool.max_queued,
        bulk_places=pool.max_bulk * size.replicas,
        max_wait_s=pool.max_wait_s,
        max_bulk_wait_s=pool.max_bulk_wait_s,
        max_click_wait_s=pool.max_click_wait_s or pool.max_wait_s,
        flood_waits=pool.flood_waits,
        tenant_share=share,
    )


def decide(load: Load, priority: Priority, left_s: float, limits: Limits) -> Refusal | TooShort | None:
    """None where the newcomer may enter. `left_s`: what its deadline leaves.

    Whoever finds nothing ahead enters, whatever its service is expected to take: the estimate may be out of date, and only
    an answer can correct it. Where others wait, one that could not be in time even alone is told so first: no place and no
    pause would help it.
    """
    bulk = priority is Priority.BULK
    places = limits.bulk_places if bulk else limits.places
    bound_s = _bound_s(load, bulk, limits)
    wait_s = load.ahead_s + load.begun_s
    if wait_s and load.least_s > left_s:
        return TooShort(load.least_s)
    if load.inside >= places:
        return Refusal("pool_full", load.next_s)
    if load.tenant_inside and load.tenant_inside >= limits.tenant_share * places:
        return Refusal("over_quota", load.next_s)
    if wait_s and wait_s + load.service_s > left_s:
        return Refusal("deadline", min(wait_s, wait_s + load.service_s - left_s))
    if load.ahead_s > bound_s:
        return Refusal("wait", load.ahead_s - bound_s)
    if load.tenant_ahead_s > limits.tenant_share * bound_s:
        return Refusal("over_quota", load.tenant_ahead_s - limits.tenant_share * bound_s)
    return None


def _bound_s(load: Load, bulk: bool, limits: Limits) -> float:
    """How long it may wait."""
    if bulk:
        return limits.max_bulk_wait_s + load.service_s
    longest_s = limits.max_wait_s + load.service_s
    if not load.click:
        return longest_s
    click_s = min(longest_s, limits.max_click_wait_s + load.service_s)
    return min(click_s, limits.flood_waits * load.service_s) if load.flood and load.service_s else click_s
