"""The body of an HTTP request: read with its limit, then made a plain body, whatever way it was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from serving.edge import limits, loose, multipart
from serving.edge.desk import off_loop
from serving.edge.fields import Fields, invalid
from serving.edge.wire import Ask, Parse
from serving.errors import Fault, Kind
from serving.settings import LimitSettings

DRAIN_S = 0.6
"""A client that is still sending when it is refused gets this long to finish, so that it can read why."""
IMAGE_TYPES = ("application/dicom", "application/nifti", "application/nrrd", "application/gzip", "application/octet-stream")
_EXPECTED = "Content-Type must be application/json, multipart/form-data, image/*, or one of " + ", ".join(IMAGE_TYPES)


async def ask(request: Request, most: LimitSettings, parse: Parse) -> Ask:
    """Read the body and parse it, in a thread where it is large. Raises Fault."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.split(";", 1)[0].strip().lower()
    if not (kind in ("application/json", "multipart/form-data", *IMAGE_TYPES) or kind.startswith("image/")):
        await _drain(request)
        raise Fault(Kind.UNSUPPORTED_MEDIA, _EXPECTED, param="content-type")
    data = await read(request, most)

    def work() -> Ask:
        if kind == "application/json":
            body = from_json(data)
        elif kind == "multipart/form-data":
            body = from_parts(data, content_type, most)
        else:
            body = from_image(data, kind, request.query_params.multi_items())
        return parse(body, most)

    return await off_loop(len(data), work)


async def read(request: Request, most: LimitSettings) -> bytes:
    """The whole body. Raises Fault: TOO_LARGE from Content-Length, or while counting; CANCELLED where the client leaves."""
    try:
        limits.body(int(request.headers.get("content-length", "0")), most)
        chunks, total = [], 0
        async for chunk in request.stream():
            total += len(chunk)
            limits.body(total, most)
            chunks.append(chunk)
    except ClientDisconnect as exc:
        raise Fault(Kind.CANCELLED, "the client went away while it was sending") from exc
    except ValueError as exc:
        raise Fault(Kind.MALFORMED, "Content-Length must be a whole number", param="content-length") from exc
    except Fault:
        await _drain(request)
        raise
    return b"".join(chunks)


async def _drain(request: Request) -> None:
    """Throw away what a refused client is still sending, for a moment: a socket closed on unread data is reset."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    until = time.monotonic() + DRAIN_S
    try:
        async with asyncio.timeout(DRAIN_S):
            while time.monotonic() < until:
                message = await request.receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


def from_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises Fault(MALFORMED)."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise Fault(Kind.MALFORMED, f"the body is not valid JSON: {exc.msg} at character {exc.pos}", param="body") from exc
    if not isinstance(body, dict):
        raise Fault(Kind.MALFORMED, "the body must be a JSON object", param="body")
    return body


def from_image(data: bytes, media_type: str, query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The bytes of an image as the body, everything else as query parameters. Raises Fault."""
    body, said = loose.body(query)
    if "image" in body or "images" in body:
        raise Fault(Kind.INVALID, "the image is the body: it cannot be a query parameter too", param="image")
    declared = "" if media_type in ("application/octet-stream", "application/gzip") and "raw" not in said else media_type
    return {**body, "image": {"media_type": declared, **said, "data": data}}


def from_parts(data: bytes, content_type: str, most: LimitSettings) -> dict[str, Any]:
    """Files `image` or `images`, a JSON part `request`, and simple form fields. Raises Fault."""
    files: list[multipart.Part] = []
    pairs: list[tuple[str, str]] = []
    body: dict[str, Any] = {}
    for part in multipart.split(data, multipart.boundary(content_type)):
        if part.name in ("image", "images"):
            files.append(part)
        elif part.name == "request":
            body = from_json(part.data)
        else:
            pairs.append((part.name, text_of(part)))
    limits.count(len(files), most.max_images, "images")
    said, of_image = loose.body(pairs)
    if twice := said.keys() & body.keys():
        raise invalid(min(twice), "is given both in request and as a form field")
    return _with_files({**body, **said}, files, of_image)


def _with_files(body: dict[str, Any], files: list[multipart.Part], of_image: dict[str, Any]) -> dict[str, Any]:
    """Put the files' bytes where the body says what pictures they are, in order."""
    if not files:
        return body
    several = "images" in body or len(files) > 1 or any(part.name == "images" for part in files)
    said = body.get("images", []) if several else [body.get("image") or {}]
    if several and body.get("image") is not None:
        raise invalid("image", "describes one picture, and several are sent: describe them in images")
    said = said or [{}] * len(files)
    if not isinstance(said, list) or len(said) != len(files):
        raise invalid("images", "must describe as many pictures as there are image parts")
    found = [_join(part, each, of_image) for part, each in zip(files, said, strict=True)]
    return {**body, "images": found} if several else {**body, "image": found[0]}


def _join(part: multipart.Part, said: object, of_image: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(said, "image", ("media_type", "raw", "index", "axis", "window"))
    known = {name: fields.get(name) for name in ("media_type", "raw", "index", "axis", "window") if fields.has(name)}
    declared = "" if part.media_type in ("application/octet-stream", "text/plain") else part.media_type
    return {"media_type": declared, **of_image, **known, "data": part.data}


def text_of(part: multipart.Part) -> str:
    """A form field. Raises Fault(MALFORMED)."""
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Fault(Kind.MALFORMED, "a form field is not UTF-8 text; files go in image or images", param="body") from exc
