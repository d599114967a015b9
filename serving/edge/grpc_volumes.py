"""Volumes over gRPC: a job's events as messages, its result in pieces behind the last; a fault becomes the call's status."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from serving.domain.request import Priority, Request
from serving.edge import caller, volume_wire
from serving.edge import grpc_messages as messages
from serving.edge.caller import Caller
from serving.edge.desk import Desk, Exchange, off_loop
from serving.edge.grpc_handlers import REMAINING_S
from serving.edge.grpc_status import finish, headers
from serving.edge.grpc_volume_messages import event, fault_of, request_body
from serving.edge.job_spool import Job
from serving.edge.jobs import Jobs
from serving.edge.proto import inference_pb2 as pb
from serving.errors import Fault, Kind

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
"""Of the result in one message."""


class GrpcVolumes:
    """The three RPCs. `desk`: with the deadlines of volumes. `context`: Ray's or grpc.aio's servicer context."""

    def __init__(self, desk: Desk, jobs: Jobs) -> None:
        self._desk = desk
        self._jobs = jobs

    async def segment(self, data: bytes, context: Any) -> AsyncGenerator[pb.VolumeEvent, None]:
        """A volume and objects in it to a job's events and result."""

        async def begin(exchange: Exchange, who: Caller) -> tuple[Job, bool]:
            exchange.priority = Priority.BULK
            most = self._desk.settings.limits
            asked = messages.read(data, pb.SegmentVolumeRequest, most)
            ask = await off_loop(len(data), lambda: volume_wire.segment_volume(request_body(asked, most), most))
            work = Request(ask.task, who.deadline, who.request_id, ask.model, who.tenant, Priority.BULK)
            return await self._jobs.start(work), not ask.keep

        async with aclosing(self._stream(context, begin, -1)) as events:
            async for each in events:
                yield each

    async def follow(self, data: bytes, context: Any) -> AsyncGenerator[pb.VolumeEvent, None]:
        """A job's events from behind `after` on, and its result."""
        after = -1

        async def begin(exchange: Exchange, who: Caller) -> tuple[Job, bool]:
            nonlocal after
            asked = messages.read(data, pb.FollowVolumeRequest, self._desk.settings.limits)
            after = asked.after if asked.HasField("after") else -1
            return self._jobs.find(asked.job, who.tenant), False

        async with aclosing(self._stream(context, begin, lambda: after)) as events:
            async for each in events:
                yield each

    async def delete(self, data: bytes, context: Any) -> pb.DeleteVolumeResponse:
        """Cancel a job, or forget it."""
        exchange = Exchange("volumes", caller.request_id(headers(context)))

        async def work() -> pb.DeleteVolumeResponse:
            who = self._desk.greet(exchange, headers(context), REMAINING_S.get())
            asked = messages.read(data, pb.DeleteVolumeRequest, self._desk.settings.limits)
            state = await self._jobs.delete(self._jobs.find(asked.job, who.tenant))
            return pb.DeleteVolumeResponse(job=asked.job, state=state)

        outcome = await self._desk.settle(exchange, work())
        finish(context, exchange, outcome if isinstance(outcome, Fault) else None)
        return pb.DeleteVolumeResponse() if isinstance(outcome, Fault) else outcome

    async def _stream(self, context: Any, begin: Any, after: Any) -> AsyncGenerator[pb.VolumeEvent, None]:
        said = headers(context)
        exchange = Exchange("volumes", caller.request_id(said))

        async def greeted() -> tuple[Job, bool]:
            found: tuple[Job, bool] = await begin(exchange, self._desk.greet(exchange, said, REMAINING_S.get()))
            return found

        begun = await self._desk.settle(exchange, greeted())
        if isinstance(begun, Fault):
            finish(context, exchange, begun)
            return
        job, cancel = begun
        try:
            fault = None
            async with aclosing(self._told(job, after() if callable(after) else after, exchange)) as events:
                async for each in events:
                    if isinstance(each, Fault):
                        fault = each
                    else:
                        yield each
            finish(context, exchange, fault)
        finally:
            if cancel and not job.ended:
                job.cancel()

    async def _told(self, job: Job, after: int, exchange: Exchange) -> AsyncGenerator[pb.VolumeEvent | Fault, None]:
        """Messages; a Fault as a value is the last."""
        try:
            async with aclosing(self._jobs.follow(job, after)) as events:
                async for each in events:
                    fault = fault_of(each)
                    if fault is not None:
                        yield fault
                        return
                    yield event(job.id, each, exchange.request_id)
            result = await self._jobs.result(job)
            for start in range(0, len(result), PIECE_BYTES):
                yield pb.VolumeEvent(job=job.id, seq=-1, piece=result[start : start + PIECE_BYTES])
        except Fault as fault:
            yield fault
        except Exception:
            log.exception("the stream of a volume job of request %s failed", exchange.request_id)
            yield Fault(Kind.INTERNAL, "the server failed on this stream; its log has the details under this request id")
