"""What is inside a pool, how far it has come, and what it has taught about service times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from serving.board import Row
from serving.domain.request import Priority, Request
from serving.router import neighbours
from serving.router.admission import Limits, Load, Permit, Refusal, TooShort, decide
from serving.router.demand import Demand
from serving.router.neighbours import URGENCY, Elsewhere
from serving.router.work import LANES, Costs, Lane, Work, work_of

UNKNOWN_S = 1.0
"""When a place is free again while nothing is known of those who hold one."""


@dataclass
class _Begun:
    """What is known of a request that the engines work on: since when, and how many seconds of its service are done."""

    at_s: float
    done_s: float = 0.0


class Gate:
    """One pool's door in one router replica. Times are seconds of one monotonic clock, the caller's.

    It follows the engines in thought: each lane works on `parallel` requests at a time, the urgent first, then as they came,
    and does not interrupt what it has begun. From this come the remaining work and, since a lane that is never idle lets
    one go each service time, the service time of what leaves.

    `neighbours`: the gates of other routers before the same engines: what waits there is ahead of a newcomer here as well.
    `resized`: the limits of a pool that grows and shrinks, as they are now.
    """

    def __init__(
        self, pool: str, limits: Limits, neighbours: Row | None = None, resized: Callable[[], Limits] | None = None
    ) -> None:
        self.pool = pool
        self._limits = limits
        self._neighbours = neighbours
        self._resized = resized
        self._costs = Costs()
        self._inside: dict[Permit, _Begun | None] = {}
        """In the order of entry -> how far it is, None while it waits."""
        self._at_s = 0.0
        """When `_inside` was last brought up to date."""
        self._demand = {lane: Demand() for lane in LANES}

    def __len__(self) -> int:
        return len(self._inside)

    def _load(self, work: Work, priority: Priority, tenant: str, now_s: float, elsewhere: Elsewhere) -> Load:
        """What a request of this class finds now."""
        left = {permit: self._left_s(permit) for permit in self._inside}
        ahead = [permit for permit in left if _goes_before(permit, work.lane, priority)]
        begun = [p for p, at in self._inside.items() if at is not None and p.work.lane is work.lane and p not in ahead]
        peers = [permit for permit in left if priority is Priority.INTERACTIVE or permit.priority is priority]
        return Load(
            ahead_s=self._wait_s([left[permit] for permit in ahead], *elsewhere.ahead(work.lane, priority)),
            begun_s=self._wait_s([left[permit] for permit in begun]),
            service_s=self._costs.expected_s(work),
            next_s=min((left[p] for p, at in self._inside.items() if at is not None and p.service_s), default=UNKNOWN_S),
            inside=len(peers),
            tenant_ahead_s=self._wait_s([left[permit] for permit in ahead if permit.tenant == tenant]),
            tenant_inside=sum(permit.tenant == tenant for permit in peers),
            click=work.lane is Lane.PROMPT,
            flood=self._demand[work.lane].floods(now_s, elsewhere.demand(work.lane)),
        )

    def enter(self, request: Request, now_s: float, image: str = "") -> tuple[Permit | Refusal | TooShort, Load]:
        """A place for the request, to be given back with `leave`, or the refusal; and on what it was decided.

        The request names the model that was chosen for it. `image`: its affinity key. Where that model is encoding that image,
        the request shares the encode and brings only its masks.
        """
        work = work_of(request.task, request.model or "")
        first = self._encodes(image, work.model) if work.items else None
        if first is not None:
            work = replace(work, kind="", items=0)
        elsewhere = self._elsewhere(now_s)
        self._work(elsewhere, now_s)
        self._resize()
        load = self._load(work, request.priority, request.tenant, now_s, elsewhere)
        own_s = load.service_s
        if request.priority is Priority.INTERACTIVE:
            self._demand[work.lane].add(own_s / self._limits.parallel, now_s, elsewhere.demand(work.lane))
        if first is not None:
            shared_s = self._left_s(first)
            load = replace(load, service_s=own_s + shared_s, shared_s=shared_s)
        refusal = decide(load, request.priority, request.deadline.at_s - now_s, self._limits)
        if refusal is None:
            permit = Permit(self.pool, work, request.priority, request.tenant, own_s, now_s, image)
            self._inside[permit] = None
            self._begin(now_s)
        self._tell(elsewhere, now_s)
        return refusal or permit, load

    def leave(self, permit: Permit, now_s: float, spent: Mapping[str, float] | None = None) -> None:
        """Give the place back. `spent`: the answer's stages in seconds, None where there was no answer."""
        elsewhere = self._elsewhere(now_s)
        self._work(elsewhere, now_s)
        self._resize()
        begun = self._inside.pop(permit)
        if spent is not None:
            self._costs.learn(permit.work, spent, now_s - (permit.entered_s if begun is None else begun.at_s))
        self._begin(now_s)
        self._tell(elsewhere, now_s)

    def _resize(self) -> None:
        """Take up the limits of the pool as it is now."""
        if self._resized is not None:
            self._limits = self._resized()

    def _encodes(self, image: str, model: str) -> Permit | None:
        """Who is inside to encode this image for this model: Features of one are of no use to another."""
        alike = (p for p in self._inside if image and p.image == image and p.work.model == model)
        return next((p for p in alike if p.work.lane is Lane.ENCODE and p.work.items), None)

    def _begin(self, now_s: float) -> None:
        """Let each lane take up what it has room for."""
        for lane in LANES:
            mine = [(permit, at) for permit, at in self._inside.items() if permit.work.lane is lane]
            room = self._limits.parallel - sum(at is not None for _, at in mine)
            waiting = sorted((p for p, at in mine if at is None), key=lambda p: URGENCY[p.priority])
            for permit in waiting[: max(room, 0)]:
                self._inside[permit] = _Begun(now_s)

    def _work(self, elsewhere: Elsewhere, now_s: float) -> None:
        """What the engines have done since the last time; those that neighbours share work on each request for a part of it."""
        passed_s, self._at_s = now_s - self._at_s, now_s
        speeds = self._speeds(elsewhere)
        for permit, begun in self._inside.items():
            if begun is not None:
                begun.done_s += speeds[permit.work.lane] * passed_s

    def _speeds(self, elsewhere: Elsewhere) -> list[float]:
        """Of each lane: see `Elsewhere.speed`."""
        begun = [permit.work.lane for permit, begun in self._inside.items() if begun is not None]
        return [elsewhere.speed(lane, begun.count(lane)) for lane in LANES]

    def _left_s(self, permit: Permit) -> float:
        """Service that is still to be done; nothing where it takes longer than expected."""
        begun = self._inside[permit]
        return permit.service_s if begun is None else max(0.0, permit.service_s - begun.done_s)

    def _wait_s(self, left_s: list[float], more_s: float = 0.0, more: float = 0.0) -> float:
        """How long the engines need for these, and `more` elsewhere; no time where there are fewer than they take at once."""
        return (sum(left_s) + more_s) / self._limits.parallel if len(left_s) + more >= self._limits.parallel else 0.0

    def _elsewhere(self, now_s: float) -> Elsewhere:
        told = () if self._neighbours is None else self._neighbours.others(now_s)
        return Elsewhere(told, self._limits.parallel, now_s)

    def _tell(self, elsewhere: Elsewhere, now_s: float) -> None:
        """The neighbours, of what is inside."""
        if self._neighbours is None:
            return
        inside = ((permit.work.lane, permit.priority, self._left_s(permit)) for permit in self._inside)
        demand = (each.level(now_s) for each in self._demand.values())
        self._neighbours.tell(neighbours.tell(inside, self._speeds(elsewhere), demand, now_s))


def _goes_before(permit: Permit, lane: Lane, priority: Priority) -> bool:
    if permit.work.lane is not lane:
        return permit.work.lane < lane
    return URGENCY[permit.priority] <= URGENCY[priority]
