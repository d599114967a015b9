"""How many replicas a pool is to have: Ray Serve's autoscaler asks at each of its ticks, and keeps the delays and the bounds.

Ray's own policy is a division: requests inside and waiting, by the target. But a replica that is busy half of the time has
but 0.75 of them in the mean, and half as many replicas would have far more than twice as many: they would be taken away and
come again for ever. So there is a band between more and fewer, in which all stays as it is. And Ray begins its delay anew at
each tick that wants no fewer: whether fewer do is asked of a slow mean, which a moment's requests do not move.
"""

from __future__ import annotations

import math
from typing import Any

DOWN = 0.5
"""Replicas go where those that stay would have less than this part of the target each."""
MEMORY = 0.1
"""Time constant of the slow mean, of the delay before fewer."""


def band(context: Any) -> tuple[int, dict[str, float]]:
    """(replicas, what to remember) of a `ray.serve.config.AutoscalingContext`. Ray sends this module to its controller."""
    config, known, now_s = context.config, context.policy_state, context.current_time
    ongoing, target, replicas = context.total_num_requests, config.get_target_ongoing_requests(), context.target_num_replicas
    age = (now_s - known.get("at_s", now_s)) / max(MEMORY * config.downscale_delay_s, 1e-3)
    slow = ongoing + (known.get("slow", ongoing) - ongoing) * math.exp(-age)
    least, most = math.ceil(ongoing / target), math.ceil(slow / (DOWN * target))
    return least if least > replicas else min(replicas, most), {"slow": slow, "at_s": now_s}
