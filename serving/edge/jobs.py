"""Volume jobs at work in this process, and anybody's view of them: started, followed, cancelled, fetched, deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from serving.domain.request import Request
from serving.domain.volume import VolumeAnswer
from serving.edge import limits, volume_render
from serving.edge.job_spool import ALIVE_S, Job, Spool
from serving.errors import Fault, Kind
from serving.router.brain import Brain
from serving.settings import Settings, VolumeSettings

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How often a job's events and its wish to be cancelled are looked at."""
STOP_S = 10.0
"""How long a deletion waits for the work to stop."""
HEARTBEAT_S = 5.0
"""A quiet job repeats its last line after so long, so that nobody between takes the stream for dead."""
LAST = ("done", "failed", "cancelled")


def volume_deadlines(settings: Settings) -> Settings:
    """The settings with the deadlines of volume jobs in place of those of other calls."""
    longest = {"default_deadline_s": settings.volumes.deadline_s, "max_deadline_s": settings.volumes.deadline_s}
    return settings.model_copy(update={"limits": settings.limits.model_copy(update=longest)})


class JobObserver(Protocol):
    """Where jobs are counted; implemented by `telemetry.metrics.Metrics`."""

    def observe_job(self, outcome: str | None) -> None:
        """One begins (None) or ends: done, failed or cancelled."""
        ...


class Jobs:
    """One a process, for both fronts."""

    def __init__(self, brain: Brain, settings: VolumeSettings, observer: JobObserver | None = None) -> None:
        self._brain = brain
        self._spool = Spool(settings)
        self._longest_s = settings.deadline_s
        self._observer = observer
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, request: Request) -> Job:
        """Begin, and wait until the volume is read and its prompts fit. Raises Fault; nothing is left of a job that it refuses.

        A caller that is cancelled takes the job along.
        """
        making = asyncio.create_task(asyncio.to_thread(self._spool.create, request.tenant))
        try:
            job = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_undo)
            raise
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work = asyncio.create_task(self._run(job, request, accepted))
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(accepted)
        except asyncio.CancelledError:
            work.cancel()
            raise
        return job

    def find(self, ident: str, tenant: str) -> Job:
        """A tenant's job. Raises Fault(NOT_FOUND)."""
        return self._spool.find(ident, tenant)

    async def follow(self, job: Job, after: int = -1) -> AsyncGenerator[dict[str, Any], None]:
        """A job's events with a `seq` above `after`, as they come, to its last; the newest again where it is quiet.

        Raises Fault where the job is removed meanwhile.
        """
        offset, last, quiet = 0, None, 0.0
        while True:
            orphaned = job.orphaned
            found, offset = job.events(offset)
            for event in found:
                last = event
                if event["seq"] > after:
                    yield event
                if event["event"] in LAST:
                    return
            if orphaned and not found:
                yield volume_render.failed((last or {"seq": -1})["seq"] + 1, _lost(), "")
                return
            quiet = 0.0 if found else quiet + POLL_S
            if quiet >= HEARTBEAT_S and last is not None:
                quiet = 0.0
                yield last
            await asyncio.sleep(POLL_S)

    async def result(self, job: Job) -> bytes:
        """A job's whole result. Raises Fault(NOT_FOUND) where there is none, or not yet."""
        data = await asyncio.to_thread(job.result)
        if data is None:
            state = "has no result: its events say why" if job.ended or job.orphaned else "is not done yet: follow its events"
            raise Fault(Kind.NOT_FOUND, f"the job {state}", param="job")
        return data

    async def delete(self, job: Job) -> str:
        """Stop a job where it is at work, and forget it with its result. Gives "cancelled" or "deleted"."""
        state = "deleted" if job.ended or job.orphaned else "cancelled"
        job.cancel()
        for _ in range(int(STOP_S / POLL_S)):
            if job.ended or job.orphaned:
                break
            await asyncio.sleep(POLL_S)
        job.remove()
        return state

    async def _run(self, job: Job, request: Request, accepted: asyncio.Future[None]) -> None:
        """Work, write each event down, and end the job whatever happens."""
        me = asyncio.current_task()
        watch = asyncio.create_task(_watch(job, me))
        seq, outcome = 0, "failed"
        self._observe(None)
        try:
            async with aclosing(self._brain.answer_volume(request)) as events:
                async for event in events:
                    if isinstance(event, VolumeAnswer):
                        await asyncio.to_thread(self._spool.keep, job, event.data)
                        outcome = "done"
                        job.end(volume_render.event(seq, job.id, event))
                    else:
                        job.append(volume_render.event(seq, job.id, event))
                    seq += 1
                    if not accepted.done():
                        accepted.set_result(None)
        except asyncio.CancelledError:
            if outcome == "done":  # the wish came after the last event
                return
            outcome = "cancelled"
            self._close(job, seq, accepted, Fault(Kind.CANCELLED, "the job was cancelled"), request.request_id)
        except Fault as fault:
            self._close(job, seq, accepted, limits.late(fault, self._longest_s, self._longest_s), request.request_id)
        except Exception:
            log.exception("volume job of request %s failed", request.request_id)
            trouble = Fault(Kind.INTERNAL, "the server failed on this volume; its log has the details under this request id")
            self._close(job, seq, accepted, trouble, request.request_id)
        finally:
            watch.cancel()
            self._observe(outcome)

    def _close(self, job: Job, seq: int, accepted: asyncio.Future[None], fault: Fault, request_id: str) -> None:
        """The end without a result: told to who waits for the beginning, or as the last event."""
        if not accepted.done():
            job.remove()
            accepted.set_exception(fault)
            accepted.exception()  # whoever waited may have left
        elif fault.kind is Kind.CANCELLED:
            job.end({"seq": seq, "event": "cancelled"})
        else:
            job.end(volume_render.failed(seq, fault, request_id))

    def _observe(self, outcome: str | None) -> None:
        if self._observer is not None:
            self._observer.observe_job(outcome)


async def _watch(job: Job, work: asyncio.Task[Any] | None) -> None:
    """Cancel the work as soon as any replica is asked to: the wish is a file. Tell other nodes that it goes on."""
    told_s = float("-inf")
    while work is not None:
        if job.cancel_asked:
            work.cancel()
            return
        if time.monotonic() - told_s >= ALIVE_S:
            told_s = time.monotonic()
            job.beat()
        await asyncio.sleep(POLL_S)


def _undo(making: asyncio.Task[Job]) -> None:
    """Whoever asked for the job left before it was made."""
    if not making.cancelled() and making.exception() is None:
        making.result().remove()


def _lost() -> Fault:
    message = "the server process that worked on this job is gone: send the volume again"
    return Fault(Kind.ENGINE_UNAVAILABLE, message, retry_after_s=1.0)
