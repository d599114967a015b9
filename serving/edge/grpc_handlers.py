"""The handlers that a gRPC server looks up: raw bytes in, and the call's deadline in a context variable.

No request deserializer, so that a malformed message reaches the front and becomes its error. Works on a plain
``grpc.aio`` server and on Ray Serve 2.60's, which swaps the handlers in `_method_handlers` for its own and gives user code
a context that has no deadline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from serving.edge.proto import inference_pb2 as pb

Handler = Any
"""A ``grpc.RpcMethodHandler``; grpcio has no types of its own, and its named tuple's `_replace` is in no stub."""

REMAINING_S: ContextVar[float | None] = ContextVar("remaining_s", default=None)
"""Seconds that the call's own timeout (grpc-timeout) left when it arrived, or None where it has none."""

INFERENCE = pb.DESCRIPTOR.services_by_name["Inference"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class TimedHandlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Handlers by full method name. Each call's remaining time is noted before its handler runs, in the same task."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._method_handlers = dict(handlers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a method, or None where it is unknown."""
        found = self._method_handlers.get(handler_call_details.method)
        if found is None:
            return None
        if found.response_streaming:
            field = "stream_stream" if found.request_streaming else "unary_stream"
            return found._replace(**{field: _timed_stream(getattr(found, field))})
        return found._replace(unary_unary=_timed(found.unary_unary))


def _timed(call: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def timed(request: Any, context: Any) -> Any:
        REMAINING_S.set(context.time_remaining())
        return await call(request, context)

    return timed


def _timed_stream(call: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def timed(request: Any, context: Any) -> AsyncIterator[Any]:
        REMAINING_S.set(context.time_remaining())
        async for each in call(request, context):
            yield each

    return timed


def add_inference_servicer(servicer: Any, server: Any) -> None:
    """Register `medserve.v1.Inference`. `servicer` has a method for each RPC, by its name, that takes bytes."""
    _add(INFERENCE, pb.DESCRIPTOR.services_by_name["Inference"], servicer, server)


def add_health_servicer(servicer: Any, server: Any) -> None:
    """Register `grpc.health.v1.Health`. `servicer` has `Check` and `Watch` that take bytes."""
    _add(HEALTH, health_pb2.DESCRIPTOR.services_by_name["Health"], servicer, server, only=("Check", "Watch"))


def _add(service: str, descriptor: Any, servicer: Any, server: Any, only: tuple[str, ...] = ()) -> None:
    handlers = {
        f"/{service}/{method.name}": _handler(method, getattr(servicer, method.name))
        for method in descriptor.methods
        if not only or method.name in only
    }
    server.add_generic_rpc_handlers((TimedHandlers(handlers),))


def _handler(method: Any, call: Any) -> Handler:
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(call, None, _bytes)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(call, None, _bytes)
    return grpc.unary_unary_rpc_method_handler(call, None, _bytes)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()
