"""A lean client: asynchronous HTTP/1.1 with keep-alive over a protocol of its own, and gRPC with ready bytes.

An ordinary client library takes about a millisecond of CPU a call, on the same cores as the server: it would measure itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import grpc
import grpc.aio

from serving.bench.asking import Ask
from serving.client import grpc_wire
from serving.edge.proto import inference_pb2 as pb


@dataclass(frozen=True)
class Reply:
    """One answer. `status`: HTTP's, or for gRPC what HTTP would say. `head`: the header lines in lower case, as bytes."""

    status: int
    head: bytes
    body: bytes
    message: Any = None

    @property
    def ok(self) -> bool:
        """Whether the call did what was asked."""
        return 200 <= self.status < 300

    def header(self, name: bytes) -> str:
        """A header's value, or nothing."""
        start = self.head.find(b"\r\n" + name + b":")
        if start < 0:
            return ""
        start += len(name) + 3
        return self.head[start : self.head.find(b"\r\n", start)].strip().decode("latin-1")

    @property
    def stages_ms(self) -> dict[str, float]:
        """Milliseconds a stage, from Server-Timing."""
        return server_timing(self.header(b"server-timing"))

    @property
    def features(self) -> str:
        """hit, miss, coalesced, or nothing."""
        return self.header(b"x-features")

    def counts(self) -> bytes:
        """The first mask's run lengths, as sent."""
        if self.message is not None:
            return bytes(self.message.masks[0].data)
        start = self.body.find(b'"counts":"') + 10
        # Of what JSON escapes, run lengths use the backslash alone.
        return self.body[start : self.body.find(b'"', start)].replace(b"\\\\", b"\\") if start >= 10 else b""

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def image_id(self) -> str:
        """The handle that the answer names."""
        return str(self.message.image_id) if self.message is not None else str(self.json()["image_id"])


def server_timing(value: str) -> dict[str, float]:
    """`encode;dur=3.1, total;dur=4` -> {"encode": 3.1, "total": 4.0}. What has no duration is left out."""
    found = {}
    for part in value.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        for parameter in parameters:
            key, _, number = parameter.partition("=")
            if key == "dur":
                with contextlib.suppress(ValueError):
                    found[name] = float(number.strip('"'))
    return found


class ResponseReader:
    """Bytes in, a Reply out when it is whole. No I/O. Knows Content-Length and chunks."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._body_start = -1
        self._length = -1
        self.keep_alive = True

    def feed(self, data: bytes) -> Reply | None:
        """Take what has come. Raises ValueError where it is not HTTP/1.1."""
        self._data += data
        if self._body_start < 0:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._open(end)
        if self._length < 0:
            return self._chunked()
        if len(self._data) < self._body_start + self._length:
            return None
        return self._done(bytes(self._data[self._body_start : self._body_start + self._length]))

    def _open(self, end: int) -> None:
        first, _, rest = bytes(self._data[:end]).partition(b"\r\n")
        words = first.split(b" ", 2)
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
            raise ValueError(f"not an HTTP answer: {first[:40]!r}")
        self._status = int(words[1])
        lines = [b"%s:%s" % (n.lower(), v) for n, _, v in (line.partition(b":") for line in rest.split(b"\r\n"))]
        self._head = b"\r\n" + b"\r\n".join(lines) + b"\r\n"
        probe = Reply(self._status, self._head, b"")
        self.keep_alive = probe.header(b"connection").lower() != "close"
        self._body_start = end + 4
        if probe.header(b"transfer-encoding").lower() != "chunked":
            self._length = int(probe.header(b"content-length") or 0)

    def _chunked(self) -> Reply | None:
        place = self._body_start
        parts: list[bytes] = []
        while True:
            line_end = self._data.find(b"\r\n", place)
            if line_end < 0:
                return None
            size = int(bytes(self._data[place:line_end]).split(b";")[0], 16)
            if len(self._data) < line_end + 2 + size + 2:
                return None
            if size == 0:
                return self._done(b"".join(parts))
            parts.append(bytes(self._data[line_end + 2 : line_end + 2 + size]))
            place = line_end + 2 + size + 2

    def _done(self, body: bytes) -> Reply:
        reply = Reply(self._status, self._head, body)
        keep = self.keep_alive
        self.__init__()  # type: ignore[misc]  # ready for the next answer on this connection
        self.keep_alive = keep
        return reply


class HttpConnection(asyncio.Protocol):
    """One connection, one request at a time; opened anew after the server has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._reader = ResponseReader()

    async def send(self, request: bytes) -> Reply:
        """Send ready bytes, wait for the answer. Raises OSError (ConnectionError) where there is none."""
        if self._transport is None or self._transport.is_closing():
            self._reader = ResponseReader()
            await asyncio.get_running_loop().create_connection(lambda: self, self.host, self.port)
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is registered nowhere

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        try:
            reply = self._reader.feed(data)
        except ValueError as exc:
            self._fail(ConnectionError(str(exc)))
            self.close()
            return
        if reply is not None:
            if not self._reader.keep_alive:
                self.close()
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._transport = None
        self._fail(ConnectionError("the connection was closed before the answer"))

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class Line(Protocol):
    """A way to the server for one call at a time."""

    async def call(self, ask: Ask) -> Reply:
        """The answer. Raises OSError where none came."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class HttpLine:
    """Over HTTP."""

    def __init__(self, url: str) -> None:
        self._connection = HttpConnection(url)

    async def call(self, ask: Ask) -> Reply:
        """The answer."""
        return await self._connection.send(ask.head + ask.body)

    async def close(self) -> None:
        """Hang up."""
        self._connection.close()


STATUS = {
    grpc.StatusCode.OK: 200, grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503, grpc.StatusCode.UNAVAILABLE: 503, grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "Segment": pb.SegmentResponse, "EncodeImage": pb.EncodeImageResponse, "Classify": pb.ClassifyResponse,
}  # fmt: skip


class GrpcLine:
    """Over gRPC, on a channel of its own."""

    def __init__(self, address: str) -> None:
        options = (*grpc_wire.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self._channel = cast(Any, grpc.aio.insecure_channel(address, options=options))
        self._methods: dict[str, Any] = {name: self._channel.unary_unary(f"/{grpc_wire.SERVICE}/{name}") for name in ANSWERS}

    async def call(self, ask: Ask) -> Reply:
        """The answer; a status is an answer, a connection that fails is not."""
        call = self._methods[ask.rpc](ask.message, metadata=ask.metadata, timeout=60.0)
        try:
            data = await call
        except grpc.aio.AioRpcError as exc:
            trailing = dict[Any, Any](cast(Any, exc.trailing_metadata()) or ())
            if exc.code() is grpc.StatusCode.UNAVAILABLE and "x-error-code" not in trailing:
                raise ConnectionError(exc.details() or "unavailable") from exc
            return Reply(STATUS.get(exc.code(), 500), as_head(trailing), (exc.details() or "").encode())
        head = as_head(dict(await call.trailing_metadata() or ()))
        return Reply(200, head, data, ANSWERS[ask.rpc].FromString(data))

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


def as_head(metadata: dict[Any, Any]) -> bytes:
    """Trailing metadata as a Reply's head."""
    lines = (f"{name}:{value}" for name, value in metadata.items() if isinstance(value, str))
    return ("\r\n" + "\r\n".join(lines) + "\r\n").encode("latin-1", "replace")


def line(front: str, http_url: str, grpc_address: str) -> Line:
    """A line over "http" or "grpc"."""
    return GrpcLine(grpc_address) if front == "grpc" else HttpLine(http_url)
