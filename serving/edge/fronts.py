"""Both fronts of one router replica, built together over one brain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.edge.grpc import GrpcFront


@dataclass(frozen=True)
class Fronts:
    """`http`: the ASGI application. `grpc`: the front that the RPC methods call."""

    http: Any
    grpc: GrpcFront
