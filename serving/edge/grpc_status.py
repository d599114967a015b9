"""What a gRPC call says beside its messages: metadata in, trailing metadata and status out."""

from __future__ import annotations

from typing import Any

import grpc

from serving.edge import render
from serving.edge.desk import Exchange
from serving.errors import Fault


def headers(context: Any) -> dict[str, str]:
    """Metadata that is text, by lower-case name."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def finish(context: Any, exchange: Exchange, fault: Fault | None) -> None:
    """Trailing metadata, and the status of a fault."""
    told = [
        ("x-request-id", exchange.request_id),
        ("server-timing", render.server_timing(exchange.stages, exchange.seconds())),
    ]
    if exchange.features:
        told.append(("x-features", exchange.features))
    if fault is not None:
        told.append(("x-error-code", fault.kind.row.code))
        if fault.param:
            told.append(("x-error-param", fault.param.encode("ascii", "replace").decode()))
        if wait := render.retry_after(fault):
            told.append(("retry-after", wait))
        context.set_code(getattr(grpc.StatusCode, fault.kind.row.grpc))
        context.set_details(fault.message)
    context.set_trailing_metadata(told)
