"""How large each pool is now, as Ray last told this process's routers to it."""

from __future__ import annotations

from serving.router.admission import Size

_SIZES: dict[str, Size] = {}


def note(pool: str, nodes: int, replicas: int) -> None:
    """Its replicas, and the nodes that they are on. A pool that is away for a moment counts as one."""
    _SIZES[pool] = Size(max(nodes, 1), max(replicas, 1))


def of(pool: str) -> Size | None:
    """None until Ray has told of it."""
    return _SIZES.get(pool)
