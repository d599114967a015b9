"""How many replicas a pool is to have: Ray Serve's autoscaler asks at each of its ticks, and keeps the delays and the bounds.

Ray's own policy is a division: requests inside and waiting, by the target. But a replica that is busy half of the time has
but 0.75 of them in the mean, and half as many replicas would have far more than twice as many: they would be taken away and
come again for ever. So there is a band between more and fewer, in which all stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

DOWN = 0.5
"""Replicas go where those that stay would have less than this part of the target each."""


def band(context: Any) -> tuple[int, dict[str, Any]]:
    """(replicas, nothing to remember) of a `ray.serve.config.AutoscalingContext`. Ray sends this module to its controller."""
    target = context.config.get_target_ongoing_requests()
    least, most = (math.ceil(context.total_num_requests / (part * target)) for part in (1.0, DOWN))
    return max(least, min(context.target_num_replicas, most)), {}
