"""Both fronts of one router replica, built together over one brain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.edge.grpc import GrpcFront


@dataclass(frozen=True)
class Fronts:
    """`http`: the ASGI application. `grpc`: the front that the RPC methods call. `weigh`: sets the weights of versions."""

    http: Any
    grpc: GrpcFront
    weigh: Callable[[Mapping[str, Mapping[str, float]]], None]
