"""The HTTP front: the routes, and which parser each has. What a call does is in `http_calls`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from serving import __version__
from serving.edge import openapi, render, schemas, wire
from serving.edge.caller import Caller
from serving.edge.desk import Desk, Exchange, Observer
from serving.edge.http_calls import JSON, HttpCalls
from serving.edge.http_volumes import add_volume_routes
from serving.edge.jobs import Jobs, volume_deadlines
from serving.edge.pages import page
from serving.edge.quick import Failed, Handler, Quick
from serving.errors import Fault, Kind
from serving.router.brain import Brain
from serving.settings import Settings

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.ErrorAnswer, "description": "The request is wrong, or over quota"},
    "5XX": {"model": schemas.ErrorAnswer, "description": "The server cannot answer it now"},
}


def build_app(
    brain: Brain,
    settings: Settings,
    *,
    observer: Observer,
    metrics: Callable[[], bytes],
    echo_request_id: bool = True,
    jobs: Jobs | None = None,
) -> ASGIApp:
    """The ASGI application over a brain. `jobs`: shared with the gRPC front.

    `metrics`: gives the Prometheus exposition. `echo_request_id`: false where the server around it sets X-Request-ID.
    """
    desk = Desk(brain, settings, observer)
    calls = HttpCalls(desk, echo_request_id)
    app = FastAPI(title="medserve", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    refused = _refusals(app, calls)
    routes = _tasks(app, calls)
    _images(app, calls)
    patient = Desk(brain, volume_deadlines(settings), observer)
    errors: dict[int | str, dict[str, Any]] = dict(_ERRORS)
    add_volume_routes(app, patient, HttpCalls(patient, echo_request_id), jobs or Jobs(brain, settings.volumes), errors)
    _about(app, desk, calls, metrics)
    document = render.json_bytes(openapi.document(app))

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> Response:
        return Response(document, media_type=JSON)

    return Quick(app, routes, refused)


def _answers(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}, **_ERRORS}


def _tasks(app: FastAPI, calls: HttpCalls) -> dict[str, Handler]:
    """The routes by path that `Quick` answers; the framework has them too, for the document and wherever it is mounted."""
    anything = schemas.SegmentInferAnswer | schemas.ClassifyInferAnswer | schemas.EmbedInferAnswer

    @app.post("/v1/infer", responses=_answers(anything), summary="The one front door: the prompts choose the task")
    async def infer(request: Request) -> Response:
        return await calls.task(request, "infer", wire.infer)

    @app.post("/v1/segment", responses=_answers(schemas.SegmentAnswer), summary="Boxes, points or earlier logits to masks")
    async def segment(request: Request) -> Response:
        return await calls.task(request, "segment", wire.segment)

    @app.post("/v1/images", responses=_answers(schemas.ImageAnswer), summary="Encode ahead: an image to a handle")
    async def encode(request: Request) -> Response:
        return await calls.task(request, "images", wire.encode)

    @app.post("/v1/classify", responses=_answers(schemas.ClassifyAnswer), summary="Images and labels to scores")
    async def classify(request: Request) -> Response:
        return await calls.task(request, "classify", wire.classify)

    @app.post("/v1/embed", responses=_answers(schemas.EmbedAnswer), summary="Images or texts to vectors")
    async def embed(request: Request) -> Response:
        return await calls.task(request, "embed", wire.embed)

    return {
        "/v1/infer": infer,
        "/v1/segment": segment,
        "/v1/images": encode,
        "/v1/classify": classify,
        "/v1/embed": embed,
    }


def _images(app: FastAPI, calls: HttpCalls) -> None:
    async def look(request: Request, image_id: str, model: str | None, drop: bool) -> Response:
        async def work(exchange: Exchange, who: Caller) -> Response:
            return await calls.answer(request, exchange, who, wire.lookup(image_id, drop=drop, model=model))

        return await calls.run(request, "images", work)

    @app.get("/v1/images/{image_id}", responses=_answers(schemas.ImageAnswer), summary="What is known of a handle")
    async def find(request: Request, image_id: str, model: str | None = None) -> Response:
        return await look(request, image_id, model, drop=False)

    @app.delete("/v1/images/{image_id}", responses=_answers(schemas.ImageAnswer), summary="Forget a handle")
    async def forget(request: Request, image_id: str, model: str | None = None) -> Response:
        return await look(request, image_id, model, drop=True)


def _about(app: FastAPI, desk: Desk, calls: HttpCalls, metrics: Callable[[], bytes]) -> None:
    landing, docs = page("landing.html"), page("docs.html")

    @app.get("/v1/models", responses=_answers(schemas.ModelsAnswer), summary="What is served")
    async def models(request: Request) -> Response:
        async def work(exchange: Exchange, who: Caller) -> Response:
            lines = [render.served(each) for each in await desk.brain.models()]
            return Response(render.json_bytes({"models": lines}), media_type=JSON)

        return await calls.run(request, "models", work)

    @app.get("/livez", summary="The process answers")
    async def livez() -> Response:
        return Response(b'{"live":true}', media_type=JSON)

    @app.get(
        "/readyz",
        responses={200: {"model": schemas.ReadyAnswer}, 503: {"model": schemas.ReadyAnswer}},
        summary="Whether work is taken, part by part",
    )
    async def readyz() -> Response:
        found = await desk.readiness()
        return Response(render.json_bytes(render.readiness(found)), 200 if found.ready else 503, media_type=JSON)

    @app.get("/metrics", summary="Prometheus text exposition")
    async def scrape() -> Response:
        await desk.readiness()
        return Response(await asyncio.to_thread(metrics), media_type=METRICS_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs_page() -> Response:
        return HTMLResponse(docs)

    @app.get("/", include_in_schema=False)
    async def landing_page() -> Response:
        return HTMLResponse(landing)


def _refusals(app: FastAPI, calls: HttpCalls) -> Failed:
    """The error body for what the framework refuses before a call begins, and for its own failures."""

    async def refused(request: Request, exc: Exception) -> Response:
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        headers = (exc.headers or {}) if isinstance(exc, HTTPException) else {}
        match status:
            case 404:
                fault = Fault(Kind.NOT_FOUND, "no such route: /docs lists them", param="path")
            case 405:
                message = f"this route does not take {request.method}: /docs says what it takes"
                fault = Fault(Kind.NOT_ALLOWED, message, param="method")
            case _ if status < 500:
                fault = Fault(Kind.MALFORMED, "the request cannot be read")
            case _:
                log.error("an unexpected failure outside a call", exc_info=exc)
                fault = Fault(Kind.INTERNAL, "the server failed on this request; its log has the details")
        response = calls.foreign(request, fault)
        response.headers.update(headers)
        return response

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, refused)
    return refused
