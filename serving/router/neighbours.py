"""What the gates of other routers before the same engines hold, as this one reckons with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serving.board import Told
from serving.domain.request import Priority
from serving.router.demand import decayed
from serving.router.work import LANES, Lane

URGENCY = {Priority.INTERACTIVE: 0, Priority.BULK: 1}
Inside = tuple[Lane, Priority, float]
"""Of one request that is inside: its lane, its priority, the seconds of service that are left."""


class Elsewhere:
    """`told`: what each neighbour told last; `parallel`: requests that the engines of a lane work on at a time."""

    def __init__(self, told: Sequence[Told], parallel: int, now_s: float) -> None:
        self._told, self._parallel, self._now_s = told, parallel, now_s

    def ahead(self, lane: Lane, priority: Priority) -> tuple[float, float]:
        """Seconds of service that go before a newcomer of this class, and of how many requests.

        What was told is a moment old, or its teller is gone: each lane has done its part of it since then.
        """
        seconds = count = 0.0
        for told in self._told:
            for each in LANES:
                done_s = self._parallel * told.speeds[each] * (self._now_s - told.at_s)
                for urgency, (of_s, of) in enumerate(zip(told.seconds[each], told.counts[each], strict=True)):
                    left_s, done_s = max(of_s - done_s, 0.0), max(done_s - of_s, 0.0)
                    if left_s and (each < lane or (each is lane and urgency <= URGENCY[priority])):
                        seconds, count = seconds + left_s, count + of
        return seconds, count

    def speed(self, lane: Lane, begun: int) -> float:
        """The part of each begun request's time that the lane's engines work on it, 0 to 1: neighbours begin theirs too."""
        theirs = sum(min(sum(told.counts[lane]), self._parallel) for told in self._told if self._lasts(told, lane))
        return min(1.0, self._parallel / (begun + theirs)) if begun else 1.0

    def _lasts(self, told: Told, lane: Lane) -> bool:
        """Whether a neighbour's lane cannot be done with what it told."""
        return sum(told.seconds[lane]) > self._parallel * told.speeds[lane] * (self._now_s - told.at_s)

    def demand(self, lane: Lane) -> float:
        """Engines' worth of interactive work that is asked for at their doors."""
        return sum(decayed(told.demand[lane], self._now_s - told.at_s) for told in self._told)


def tell(inside: Iterable[Inside], speeds: Iterable[float], demand: Iterable[float], now_s: float) -> Told:
    """What a gate tells of what is inside, and of the speed and the demand of each lane."""
    seconds, counts = ([[0.0] * len(URGENCY) for _ in LANES] for _ in range(2))
    for lane, priority, left_s in inside:
        seconds[lane][URGENCY[priority]] += left_s
        counts[lane][URGENCY[priority]] += 1
    return Told(now_s, seconds, counts, list(speeds), list(demand))
