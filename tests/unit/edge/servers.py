"""Both fronts over one fake brain, on real sockets of the loopback interface, in a thread of their own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from serving.edge import grpc_server
from serving.edge.grpc import GrpcFront
from serving.edge.http import build_app
from serving.settings import Settings
from tests.unit.edge.fakes import FakeBrain, Notes


@dataclass
class Served:
    brain: FakeBrain
    notes: Notes
    url: str
    address: str


@contextmanager
def serve(settings: Settings, metrics: bytes = b"up 1\n") -> Iterator[Served]:
    brain, notes = FakeBrain(), Notes()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    # asyncio sets TCP_NODELAY only where the protocol is said.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    app = build_app(brain, settings, observer=notes, metrics=lambda: metrics)
    http = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def open_both() -> tuple[Any, int, Any]:
        server, port = await grpc_server.start(GrpcFront(brain, settings, observer=notes))
        serving = asyncio.create_task(http.serve([listening]))
        while not http.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        return server, port, serving

    async def close_both() -> None:
        http.should_exit = True
        await serving
        await server.stop(0)

    server, port, serving = wait(open_both())
    try:
        yield Served(brain, notes, f"http://127.0.0.1:{listening.getsockname()[1]}", f"127.0.0.1:{port}")
    finally:
        wait(close_both())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        listening.close()
