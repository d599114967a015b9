"""Both fronts of one router replica, built together over one brain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.edge.grpc import GrpcFront


@dataclass(frozen=True)
class Fronts:
    """`http`: the ASGI application. `grpc`: the front that the RPC methods call. `weigh`: sets the weights of versions.

    `noting`: the task that notes the pools' readiness, kept here lest it be collected.
    """

    http: Any
    grpc: GrpcFront
    weigh: Callable[[Mapping[str, Mapping[str, float]]], None]
    noting: asyncio.Task[None]
