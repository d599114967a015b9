"""The HTTP routes of volumes: a job is begun, and its events are streamed as lines of JSON (application/x-ndjson)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving.domain.request import Priority
from serving.domain.request import Request as Work
from serving.domain.volume import VolumeFormat
from serving.edge import render, volume_body, volume_render, volume_schemas
from serving.edge.caller import Caller
from serving.edge.desk import Desk, Exchange
from serving.edge.fields import invalid
from serving.edge.http_calls import JSON, HttpCalls, unless_gone
from serving.edge.job_spool import Job
from serving.edge.jobs import Jobs
from serving.errors import Fault
from serving.imaging.volume_file import MEDIA_TYPES, NAMES

LINES = "application/x-ndjson"
_STREAM = {"content": {LINES: {"schema": {"$ref": "#/components/schemas/VolumeEventLine"}}}}


def add_volume_routes(app: FastAPI, desk: Desk, calls: HttpCalls, jobs: Jobs, errors: dict[int | str, dict[str, Any]]) -> None:
    """Mount the routes. `desk`: with the deadlines of volumes."""
    lines = {200: {"description": "One line of JSON an event, the last done, failed or cancelled", **_STREAM}, **errors}

    @app.post("/v1/volumes/segment", responses=lines, summary="Objects in a volume to masks on every slice, as a job")
    async def segment(request: Request) -> Response:
        async def work(exchange: Exchange, who: Caller) -> Response:
            exchange.priority = Priority.BULK
            ask = await volume_body.ask(request, desk.settings)
            asked = Work(ask.task, who.deadline, who.request_id, ask.model, who.tenant, Priority.BULK)
            job = await unless_gone(request, jobs.start(asked))
            return _stream(jobs, job, -1, who.request_id, cancel=not ask.keep)

        return await calls.run(request, "volumes", work)

    @app.get("/v1/volumes/{job}", responses=lines, summary="A job's events, from behind `after` on")
    async def follow(request: Request, job: str, after: str = "-1") -> Response:
        async def work(exchange: Exchange, who: Caller) -> Response:
            return _stream(jobs, jobs.find(job, who.tenant), _after(after), who.request_id, cancel=False)

        return await calls.run(request, "volumes", work)

    file = {
        200: {"description": "The file of the output asked for", "content": {t: {} for t in MEDIA_TYPES.values()}},
        **errors,
    }

    @app.get("/v1/volumes/{job}/result", responses=file, summary="A job's masks as a file")
    async def result(request: Request, job: str) -> Response:
        async def work(exchange: Exchange, who: Caller) -> Response:
            found = jobs.find(job, who.tenant)
            data = await jobs.result(found)
            form = next((VolumeFormat(e["format"]) for e in found.events(0)[0] if e["event"] == "done"), VolumeFormat.PACKED)
            headers = {"content-disposition": f'attachment; filename="{NAMES[form]}"'}
            return Response(data, media_type=MEDIA_TYPES[form], headers=headers)

        return await calls.run(request, "volumes", work)

    gone = {200: {"model": volume_schemas.VolumeGone}, **errors}

    @app.delete("/v1/volumes/{job}", responses=gone, summary="Cancel a job, or forget one that is done, with its result")
    async def delete(request: Request, job: str) -> Response:
        async def work(exchange: Exchange, who: Caller) -> Response:
            state = await jobs.delete(jobs.find(job, who.tenant))
            return Response(render.json_bytes({"job": job, "state": state}), media_type=JSON)

        return await calls.run(request, "volumes", work)


def _stream(jobs: Jobs, job: Job, after: int, request_id: str, *, cancel: bool) -> Response:
    return StreamingResponse(
        _lines(jobs, job, after, request_id, cancel),
        media_type=LINES,
        headers={"location": f"/v1/volumes/{job.id}", "cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _lines(jobs: Jobs, job: Job, after: int, request_id: str, cancel: bool) -> AsyncIterator[bytes]:
    """A job's events. `cancel`: whoever reads them leaves with the job's life."""
    seq = after
    try:
        async for event in jobs.follow(job, after):
            seq = event["seq"]
            yield render.json_bytes(event) + b"\n"
    except Fault as fault:  # the answer has begun: what goes wrong now is its last line
        yield render.json_bytes(volume_render.failed(seq + 1, fault, request_id)) + b"\n"
    finally:
        if cancel and not job.ended:
            job.cancel()


def _after(text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise invalid("after", "must be the seq of the last event that was read") from exc
