"""The gRPC front: bytes in, messages out; a fault becomes the status and trailing metadata, never an exception.

Ray Serve calls the methods with its own context and reads status and metadata back from it; a plain ``grpc.aio`` server
(`grpc_server`) hands in its own. An exception that left here would reach the client with its trace under Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from serving.domain.answer import Answer
from serving.edge import caller, render, wire
from serving.edge import grpc_messages as messages
from serving.edge.caller import Caller
from serving.edge.desk import Desk, Exchange, Observer, off_loop
from serving.edge.grpc_handlers import INFERENCE, REMAINING_S, add_health_servicer, add_inference_servicer
from serving.edge.grpc_session import Session
from serving.edge.grpc_status import finish as _finish
from serving.edge.grpc_status import headers as _headers
from serving.edge.grpc_volumes import GrpcVolumes
from serving.edge.jobs import Jobs, volume_deadlines
from serving.edge.proto import inference_pb2 as pb
from serving.errors import Fault, Kind
from serving.router.brain import Brain
from serving.settings import LimitSettings, Settings

__all__ = ["GrpcFront", "add_health_servicer", "add_inference_servicer"]

log = logging.getLogger(__name__)

WATCH_S = 1.0
"""How often a health watcher's state is looked at."""

Plain = Callable[[Any, LimitSettings], wire.Ask]
M = TypeVar("M", bound=Message)


class Method(Generic[M]):
    """One unary RPC: its metric route, its request and response messages, how it is read and how answered."""

    def __init__(
        self, route: str, request: type[Message], response: type[M], read: Plain, write: Callable[[Answer, str], Message]
    ) -> None:
        self.route = route
        self.request = request
        self.response = response
        self.read = read
        self.write = write


def _through(to_plain: Callable[[Any, LimitSettings], Any], parse: wire.Parse) -> Plain:
    return lambda message, most: parse(to_plain(message, most), most)


def _find(message: pb.GetImageRequest | pb.DeleteImageRequest, most: LimitSettings, *, drop: bool) -> wire.Ask:
    return wire.lookup(message.image_id, drop=drop, model=message.model)


_SEGMENT = Method("segment", pb.SegmentRequest, pb.SegmentResponse, _through(messages.segment, wire.segment), messages.answer)
_ENCODE = Method(
    "images", pb.EncodeImageRequest, pb.EncodeImageResponse, _through(messages.encode, wire.encode), messages.answer
)
_CLASSIFY = Method(
    "classify", pb.ClassifyRequest, pb.ClassifyResponse, _through(messages.classify, wire.classify), messages.answer
)
_EMBED = Method("embed", pb.EmbedRequest, pb.EmbedResponse, _through(messages.embed, wire.embed), messages.answer)
_INFER = Method("infer", pb.InferRequest, pb.InferResponse, _through(messages.infer, wire.infer), messages.inferred)
_GET = Method("images", pb.GetImageRequest, pb.EncodeImageResponse, partial(_find, drop=False), messages.answer)
_DELETE = Method("images", pb.DeleteImageRequest, pb.DeleteImageResponse, partial(_find, drop=True), messages.deleted)


class GrpcFront:
    """One method an RPC. `context`: Ray's or grpc.aio's servicer context."""

    def __init__(self, brain: Brain, settings: Settings, *, observer: Observer, jobs: Jobs | None = None) -> None:
        self._desk = Desk(brain, settings, observer)
        patient = Desk(brain, volume_deadlines(settings), observer)
        self.volumes = GrpcVolumes(patient, jobs or Jobs(brain, settings.volumes))

    async def infer(self, data: bytes, context: Any) -> pb.InferResponse:
        """The one front door."""
        return await self._unary(_INFER, data, context)

    async def segment(self, data: bytes, context: Any) -> pb.SegmentResponse:
        """Visual prompts to masks."""
        return await self._unary(_SEGMENT, data, context)

    async def encode_image(self, data: bytes, context: Any) -> pb.EncodeImageResponse:
        """An image to a handle."""
        return await self._unary(_ENCODE, data, context)

    async def get_image(self, data: bytes, context: Any) -> pb.EncodeImageResponse:
        """What is known of a handle."""
        return await self._unary(_GET, data, context)

    async def delete_image(self, data: bytes, context: Any) -> pb.DeleteImageResponse:
        """Forget a handle."""
        return await self._unary(_DELETE, data, context)

    async def classify(self, data: bytes, context: Any) -> pb.ClassifyResponse:
        """Images and labels to scores."""
        return await self._unary(_CLASSIFY, data, context)

    async def embed(self, data: bytes, context: Any) -> pb.EmbedResponse:
        """Images or texts to vectors."""
        return await self._unary(_EMBED, data, context)

    async def list_models(self, data: bytes, context: Any) -> pb.ListModelsResponse:
        """What is served."""

        async def work(exchange: Exchange, who: Caller) -> pb.ListModelsResponse:
            messages.read(data, pb.ListModelsRequest, self._desk.settings.limits)
            return pb.ListModelsResponse(models=[messages.served(each) for each in await self._desk.brain.models()])

        return await self._settled("models", context, work, pb.ListModelsResponse)

    async def segment_session(self, stream: AsyncIterator[bytes], context: Any) -> AsyncIterator[pb.SegmentSessionResponse]:
        """An image, then prompts on it. See `grpc_session`."""
        headers = _headers(context)
        exchange = Exchange("segment", caller.request_id(headers))
        fault: Fault | None = None
        try:
            left_s = REMAINING_S.get()
            who = self._desk.greet(exchange, headers, left_s)
            bounded = left_s is not None or "x-deadline-ms" in headers
            session = Session(self._desk, who, who.deadline if bounded else None)
            async for each in session.run(stream):
                yield each
        except Fault as found:
            fault = found
        except Exception:
            log.exception("session %s failed", exchange.request_id)
            fault = Fault(Kind.INTERNAL, "the server failed on this session; its log has the details under this request id")
        _finish(context, exchange, fault)

    async def check(self, data: bytes, context: Any) -> health_pb2.HealthCheckResponse:
        """grpc.health.v1: SERVING or NOT_SERVING, from the brain's readiness."""
        try:
            return await self._health(data)
        except Fault as fault:
            _finish(context, Exchange("health", caller.request_id(_headers(context))), fault)
            return health_pb2.HealthCheckResponse()

    async def watch(self, data: bytes, context: Any) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """grpc.health.v1: the state, and again whenever it changes."""
        last = None
        while True:
            try:
                state = await self._health(data)
            except Fault:
                state = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if state != last:
                yield state
            last = state
            await asyncio.sleep(WATCH_S)

    async def _health(self, data: bytes) -> health_pb2.HealthCheckResponse:
        asked = messages.read(data, health_pb2.HealthCheckRequest, self._desk.settings.limits).service
        if asked not in ("", INFERENCE):
            raise Fault(Kind.NOT_FOUND, f"this service is not here; ask for {INFERENCE} or for nothing", param="service")
        ready = (await self._desk.readiness()).ready
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if ready else states.NOT_SERVING)

    async def _unary(self, method: Method[M], data: bytes, context: Any) -> M:
        most = self._desk.settings.limits

        def read() -> wire.Ask:
            return method.read(messages.read(data, method.request, most), most)

        async def work(exchange: Exchange, who: Caller) -> Any:
            ask = await off_loop(len(data), read)
            given = await self._desk.answer(exchange, who, ask)
            start = time.perf_counter()
            made = await off_loop(render.size_bytes(given), lambda: method.write(given, exchange.request_id))
            self._desk.serialised(exchange, time.perf_counter() - start)
            return made

        return await self._settled(method.route, context, work, method.response)

    async def _settled(
        self, route: str, context: Any, work: Callable[[Exchange, Caller], Awaitable[M]], response: type[M]
    ) -> M:
        headers = _headers(context)
        exchange = Exchange(route, caller.request_id(headers), "grpc", caller.traceparent(headers))

        async def greeted() -> M:
            return await work(exchange, self._desk.greet(exchange, headers, REMAINING_S.get()))

        outcome = await self._desk.settle(exchange, greeted())
        if isinstance(outcome, Fault):
            _finish(context, exchange, outcome)
            return response()
        _finish(context, exchange, None)
        return outcome
