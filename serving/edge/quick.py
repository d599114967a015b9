"""The busy routes, found by their exact path before the framework looks: its routing costs more than reading the call does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Failed = Callable[[Request, Exception], Awaitable[Response]]


class Quick:
    """An ASGI application before another: a POST to a path of `routes` is answered here, everything else there.

    `failed`: the answer where a handler raises.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, Handler], failed: Failed) -> None:
        self._app = app
        self._routes = routes
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's."""
        handler = self._routes.get(scope["path"]) if _is_plain_post(scope) else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except Exception as exc:
            response = await self._failed(request, exc)
        await response(scope, receive, send)


def _is_plain_post(scope: Scope) -> bool:
    """One that is not mounted below a path of somebody else's."""
    return scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path")
