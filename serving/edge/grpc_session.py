"""SegmentSession: an image, then prompts on it, several in flight, answered in the order in which they were asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from serving.domain.answer import Answer, Encoded
from serving.domain.image import EncodedImage, ImageHandle, ImageSource
from serving.domain.request import Deadline, Encode, Segment
from serving.edge import grpc_messages as messages
from serving.edge import wire
from serving.edge.caller import Caller
from serving.edge.desk import Desk, Exchange, off_loop
from serving.edge.proto import inference_pb2 as pb
from serving.errors import Fault, Kind

log = logging.getLogger(__name__)

IN_FLIGHT = 16
"""Messages of one session that are worked on at a time; reading waits beyond that."""

T = TypeVar("T")
Pending = asyncio.Task[pb.SegmentSessionResponse]
Work = Callable[[Exchange, Caller], Awaitable[Answer]]


@dataclass(frozen=True)
class _Shown:
    """The image of the session: its bytes, the model asked for, and how its encoding ended or will."""

    image: EncodedImage
    model: str | None
    encoded: asyncio.Future[Answer | Fault]


class Session:
    """One stream. A fault of one message is its answer; only a message that cannot be read ends the stream."""

    def __init__(self, desk: Desk, who: Caller, timeout: Deadline | None) -> None:
        self._desk = desk
        self._who = who
        self._timeout = timeout
        self._shown: _Shown | None = None
        self._pending: asyncio.Queue[Pending | Fault | None] = asyncio.Queue(IN_FLIGHT)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, stream: AsyncIterator[bytes]) -> AsyncIterator[pb.SegmentSessionResponse]:
        """The answers. Raises Fault where a message cannot be read."""
        self._begin(self._read(stream))
        try:
            while (each := await self._pending.get()) is not None:
                if isinstance(each, Fault):
                    raise each
                yield await each
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self, stream: AsyncIterator[bytes]) -> None:
        end: Fault | None = None
        try:
            async for data in stream:
                message, work = await self._take(data)
                await self._pending.put(self._begin(self._reply(message, work)))
        except Fault as fault:
            end = fault
        except Exception:
            log.exception("the stream of session %s failed", self._who.request_id)
            end = Fault(Kind.INTERNAL, "the server failed on this session; its log has the details under this request id")
        await self._pending.put(end)

    async def _take(self, data: bytes) -> tuple[pb.SegmentSessionRequest, Work]:
        """A message, and what it asks for, bound to the image that is shown when it arrives. Raises Fault."""
        most = self._desk.settings.limits
        message = await off_loop(len(data), lambda: messages.read(data, pb.SegmentSessionRequest, most))
        if message.WhichOneof("kind") == "image":
            return message, await self._switch(message.image, len(data))
        shown = self._shown

        async def prompt(exchange: Exchange, who: Caller) -> Answer:
            if message.WhichOneof("kind") != "prompt":
                raise Fault(Kind.INVALID, "a message needs an image or a prompt", param="kind")
            if shown is None:
                raise Fault(Kind.INVALID, "send an image before the first prompt", param="image")
            return await self._segment(exchange, who, message.prompt, shown)

        return message, prompt

    async def _switch(self, given: pb.EncodeImageRequest, size_bytes: int) -> Work:
        """Show another image from now on. A bad image shows nothing, and prompts on it are refused."""
        self._shown = None
        most = self._desk.settings.limits
        try:
            ask = await off_loop(size_bytes, lambda: wire.encode(messages.encode(given, most), most))
        except Fault as fault:
            return _refuse(fault)
        assert isinstance(ask.task, Encode)
        encoded: asyncio.Future[Answer | Fault] = asyncio.get_running_loop().create_future()
        self._shown = _Shown(ask.task.image, ask.model, encoded)

        async def encode(exchange: Exchange, who: Caller) -> Answer:
            outcome: Answer | Fault = Fault(Kind.INTERNAL, "the image of this session could not be encoded")
            try:
                outcome = await self._desk.answer(exchange, who, ask)
            except Fault as fault:
                outcome = fault
                raise
            finally:
                encoded.set_result(outcome)
            return outcome

        return encode

    async def _segment(self, exchange: Exchange, who: Caller, given: pb.SessionPrompt, shown: _Shown) -> Answer:
        most = self._desk.settings.limits
        body = messages.session_prompt(given, most)
        handle = await self._handle(who, shown)
        ask = wire.segment({**body, "model": shown.model, "image_id": handle.id}, most)
        try:
            return await self._desk.answer(exchange, who, ask)
        except Fault as fault:
            if fault.kind is not Kind.UNKNOWN_HANDLE:
                raise
        return await self._desk.answer(exchange, who, _with_image(ask, shown.image))

    async def _handle(self, who: Caller, shown: _Shown) -> ImageHandle:
        """The handle of the image, once it is encoded and for no longer than this prompt's own deadline."""
        await asyncio.wait({shown.encoded}, timeout=who.deadline.check("the image was encoded"))
        if not shown.encoded.done():
            raise self._desk.late(Fault(Kind.DEADLINE, "the deadline passed before the image was encoded"))
        outcome = shown.encoded.result()
        if isinstance(outcome, Fault):
            raise outcome
        assert isinstance(outcome.result, Encoded)
        return ImageHandle(outcome.result.image_id)

    async def _reply(self, message: pb.SegmentSessionRequest, work: Work) -> pb.SegmentSessionResponse:
        kind = message.WhichOneof("kind")
        who, route = self._who, "images" if kind == "image" else "segment"
        exchange = Exchange(route, who.request_id, "grpc", who.trace, priority=who.priority)

        async def answered() -> pb.SegmentSessionResponse:
            given = await work(exchange, self._caller(message.deadline_ms))
            made: dict[str, Any] = {"image" if kind == "image" else "masks": messages.answer(given, exchange.request_id)}
            return pb.SegmentSessionResponse(id=message.id, **made)

        outcome = await self._desk.settle(exchange, answered())
        if isinstance(outcome, Fault):
            return pb.SegmentSessionResponse(id=message.id, error=messages.error(outcome))
        return outcome

    def _caller(self, deadline_ms: int) -> Caller:
        """The caller with a deadline of this message's own, never later than the stream's."""
        limits = self._desk.settings.limits
        seconds = deadline_ms / 1000 if deadline_ms else limits.default_deadline_s
        deadline = Deadline.after(min(seconds, limits.max_deadline_s))
        if self._timeout is not None and self._timeout.at_s < deadline.at_s:
            deadline = self._timeout
        return replace(self._who, deadline=deadline)


def _with_image(ask: wire.Ask, image: ImageSource) -> wire.Ask:
    assert isinstance(ask.task, Segment)
    return replace(ask, task=replace(ask.task, image=image))


def _refuse(fault: Fault) -> Work:
    async def refuse(exchange: Exchange, who: Caller) -> Answer:
        raise fault

    return refuse
