"""How many users there are at each moment: steady, ramp, spike, soak or tide, by `--shape`, `--users` and `--run-time`."""

from __future__ import annotations

from dataclasses import dataclass

from locust import LoadTestShape

SHAPES = ("steady", "ramp", "spike", "soak", "tide")
STEPS = 5
"""Of a ramp: each keeps its users for a fifth of the time."""
QUIET, SPIKE = 0.2, (0.4, 0.6)
"""A spike: a fifth of the users, all of them between these parts of the time, and a fifth again."""
SOAK_SHARE = 0.8
"""A soak runs below capacity: four fifths of the users that `--users` says the cluster can take."""
RISES, FULL, FALLS = 0.2, 0.25, 0.7
"""A tide: a fifth of the users until the first of these parts of the time, growing to all of them by the second, which stay
until the third; then a fifth again."""
DEFAULT_S = {"steady": 60.0, "ramp": 300.0, "spike": 120.0, "soak": 600.0, "tide": 300.0}


@dataclass(frozen=True)
class Plan:
    """A shape of `users` at its peak that lasts `seconds`."""

    shape: str
    users: int
    seconds: float

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"no shape {self.shape}; there are: {', '.join(SHAPES)}")

    def at(self, seconds: float) -> int | None:
        """Users at a moment; None when it is over."""
        if seconds >= self.seconds:
            return None
        part = seconds / self.seconds
        if self.shape == "ramp":
            return self._share((int(part * STEPS) + 1) / STEPS)
        if self.shape == "spike":
            return self.users if SPIKE[0] <= part < SPIKE[1] else self._share(QUIET)
        if self.shape == "tide":
            grown = min((part - RISES) / (FULL - RISES), 1.0) if RISES <= part < FALLS else 0.0
            return self._share(QUIET + (1 - QUIET) * grown)
        return self._share(SOAK_SHARE) if self.shape == "soak" else self.users

    def _share(self, part: float) -> int:
        return max(round(self.users * part), 1)


class Shape(LoadTestShape):
    """Reads the plan from locust's own options at its first tick."""

    use_common_options = True
    plan: Plan | None = None

    def tick(self) -> tuple[int, float] | None:
        """(users, users a second that come or go), or None at the end."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        if self.plan is None:
            seconds = float(options.run_time or DEFAULT_S[options.shape])
            self.plan = Plan(options.shape, options.num_users or 1, seconds)
        users = self.plan.at(self.get_run_time())
        return None if users is None else (users, float(options.spawn_rate or users))
