"""How much work is asked for: seconds of service that arrive a second, whether it is let in or not.

This tells a crowd from a flood. Clients that wait for their answers (a room full of users, each with one click at a time) ask
for no more than the engines do, however long their line is: every new request follows an answer. A flood asks for more, and
goes on asking. Only a flood is worth refusing early: it cannot all be served, and a short line serves as much of it as a long
one (Nichols and Jacobson, Controlling queue delay, 2012, call the first a good queue if it drains).
"""

from __future__ import annotations

import math

MEMORY_S = 2.0
"""Time constant of the exponential mean: longer than a burst, shorter than a user's patience."""
FLOOD = 1.5
"""Of what the engines can do. Estimates of service times lag behind a machine whose speed changes."""
LASTING_S = 1.0
"""A flood lasts at least so long: a burst may look like one for a moment."""


def decayed(level: float, age_s: float) -> float:
    """What is left of a level that was measured so long ago."""
    return level * math.exp(-age_s / MEMORY_S)


class Demand:
    """Of one lane. Times are seconds of one monotonic clock. `elsewhere`: the level at the neighbours' doors."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at_s = 0.0
        self._above_since_s: float | None = None

    def add(self, service_s: float, now_s: float, elsewhere: float = 0.0) -> None:
        """One request came, that would keep all engines of the lane busy for so long."""
        self._level = self.level(now_s) + service_s / MEMORY_S
        self._at_s = now_s
        if self._level + elsewhere <= FLOOD:
            self._above_since_s = None
        elif self._above_since_s is None:
            self._above_since_s = now_s

    def level(self, now_s: float) -> float:
        """Engines' worth of work that is asked for here: 1 keeps them just busy."""
        return decayed(self._level, now_s - self._at_s)

    def floods(self, now_s: float, elsewhere: float = 0.0) -> bool:
        """Whether more is asked for than can be done, and has been for a while."""
        since_s = self._above_since_s
        return since_s is not None and self.level(now_s) + elsewhere > FLOOD and now_s - since_s >= LASTING_S
