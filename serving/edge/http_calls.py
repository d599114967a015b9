"""One HTTP call: parse, ask the brain, render; and the same error body for everything that goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serving.domain.answer import Answer
from serving.edge import caller, http_body, render
from serving.edge.caller import Caller
from serving.edge.desk import Desk, Exchange, off_loop
from serving.edge.wire import Ask, Parse
from serving.errors import Fault, Kind

T = TypeVar("T")
JSON = "application/json"
Work = Callable[[Exchange, Caller], Awaitable[Response]]


class HttpCalls:
    """The calls of the HTTP front. `echo_request_id`: false where the server around this front sets X-Request-ID itself."""

    def __init__(self, desk: Desk, echo_request_id: bool) -> None:
        self._desk = desk
        self._echo_request_id = echo_request_id

    async def run(self, request: Request, route: str, work: Work) -> Response:
        """Greet the caller, do the work unless the client leaves, and answer; a fault becomes its error body."""
        exchange = Exchange(route, caller.request_id(request.headers), "http", caller.traceparent(request.headers))

        async def greeted() -> Response:
            return await work(exchange, self._desk.greet(exchange, request.headers))

        outcome = await self._desk.settle(exchange, greeted())
        response = self.refuse(outcome, exchange.request_id) if isinstance(outcome, Fault) else outcome
        if self._echo_request_id:
            response.headers["x-request-id"] = exchange.request_id
        response.headers["server-timing"] = render.server_timing(exchange.stages, exchange.seconds())
        if exchange.features:
            response.headers["x-features"] = exchange.features
        return response

    async def task(self, request: Request, route: str, parse: Parse) -> Response:
        """A call with a body."""

        async def work(exchange: Exchange, who: Caller) -> Response:
            ask = await http_body.ask(request, self._desk.settings.limits, parse)
            return await self.answer(request, exchange, who, ask)

        return await self.run(request, route, work)

    async def answer(self, request: Request, exchange: Exchange, who: Caller, ask: Ask) -> Response:
        """Ask the brain and write its answer; stop where the client leaves. Raises Fault."""
        given = await unless_gone(request, self._desk.answer(exchange, who, ask))
        start = time.perf_counter()
        data = await off_loop(render.size_bytes(given), partial(_write, given, ask.encoding, exchange.route))
        self._desk.serialised(exchange, time.perf_counter() - start)
        return Response(data, media_type=JSON)

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """The error body of a fault."""
        response = Response(render.json_bytes(render.fault(fault, request_id)), fault.kind.row.http, media_type=JSON)
        wait = render.retry_after(fault)
        if wait is not None:
            response.headers["retry-after"] = wait
        if fault.kind is Kind.UNAUTHENTICATED:
            response.headers["www-authenticate"] = "Bearer"
        return response

    def foreign(self, request: Request, fault: Fault) -> Response:
        """The error body of what never reached a call: an unknown route, a wrong method, a failure of the framework."""
        ident = caller.request_id(request.headers)
        response = self.refuse(fault, ident)
        if self._echo_request_id:
            response.headers["x-request-id"] = ident
        return response


def _write(given: Answer, encoding: str, route: str) -> bytes:
    body: dict[str, Any] = {"task": render.task_name(given)} if route == "infer" else {}
    return render.json_bytes({**body, **render.answer(given, encoding)})


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The answer, or Fault(CANCELLED) as soon as the client hangs up; the work is cancelled with it."""
    mine = asyncio.current_task()
    assert mine is not None
    left = False

    def leave(gone: asyncio.Future[None]) -> None:
        nonlocal left
        left = True
        mine.cancel()

    gone = asyncio.ensure_future(_disconnect(request))
    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if left and not mine.uncancel():
            raise Fault(Kind.CANCELLED, "the client went away before the answer was ready") from None
        raise
    finally:
        gone.remove_done_callback(leave)
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
