"""Call -> HTTP request, HTTP response -> result, httpx's exceptions -> the client's; whether it blocks or is awaited."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from serving.client.calls import Call, Options, R
from serving.client.fault import MedserveError, late, nobody_behind, unreachable, unreadable, waiting
from serving.client.results import (
    Classification,
    Embeddings,
    Frame,
    ImageHandle,
    Mask,
    Model,
    Segmentation,
    VolumeSegmentation,
)
from serving.client.volumes import Stream, VolumeCall

_DATA = {"png": "png", "packed": "packed"}
_TIMEOUT_SLACK_S = 5.0
"""The server answers at the deadline; the socket waits this much longer."""


@contextmanager
def answered(url: str) -> Iterator[None]:
    """Around a request and what is read of its response: MedserveError where no answer came, or not in time."""
    try:
        yield
    except httpx.TimeoutException as exc:
        raise late(0) from exc
    except httpx.HTTPError as exc:
        raise unreachable(url) from exc


def authorization(token: str | None) -> dict[str, str] | None:
    """The headers of every request."""
    return {"authorization": f"Bearer {token}"} if token else None


def request(client: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
    """The request of a call: multipart where it carries images, JSON elsewhere."""
    body = dict(call.body)
    if call.options.get("model"):
        body["model"] = call.options["model"]
    if call.name in ("image", "forget"):
        method = "DELETE" if call.name == "forget" else "GET"
        return client.build_request(
            method, f"/v1/images/{call.handles[0]}", params=body, headers=headers(call.options), timeout=_timeout(call.options)
        )
    if call.name == "segment" and call.handles:
        body["image_id"] = call.handles[0]
    elif call.handles:
        body["images"] = [{"image_id": each} for each in call.handles]
    sent: dict[str, Any] = {"json": json.loads(_json(body))}
    if call.uploads:
        single = call.name in ("segment", "images")
        said = [each.said for each in call.uploads]
        body.update({"image": said[0]} if single else {"images": said})
        files: list[tuple[str, Any]] = [
            ("image" if single else "images", ("image", each.data, "application/octet-stream")) for each in call.uploads
        ]
        sent = {"files": [*files, ("request", (None, _json(body), "application/json"))]}
    return client.build_request(
        "POST", f"/v1/{call.name}", headers=headers(call.options), timeout=_timeout(call.options), **sent
    )


def headers(options: Options) -> dict[str, str]:
    """The headers of a call's options."""
    found = {}
    if options.get("request_id"):
        found["x-request-id"] = options["request_id"]
    if options.get("priority"):
        found["x-priority"] = options["priority"]
    deadline_s = options.get("deadline_s")
    if deadline_s is not None:
        found["x-deadline-ms"] = str(deadline_s * 1000)
    return found


def _timeout(options: Options) -> Any:
    deadline_s = options.get("deadline_s")
    return httpx.USE_CLIENT_DEFAULT if deadline_s is None else max(deadline_s, 0) + _TIMEOUT_SLACK_S


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, default=lambda data: b64encode(data).decode("ascii")).encode()


def checked(response: httpx.Response) -> dict[str, Any]:
    """The JSON of a response. Raises MedserveError; a proxy's own answer of 5xx is `unreachable`, whatever its body."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    if response.is_success or not isinstance(error, dict) or "code" not in error:
        raise (nobody_behind if response.is_server_error else unreadable)(response.status_code)
    raise MedserveError(
        error["code"],
        error.get("message", f"the server answered with status {response.status_code}"),
        response.status_code,
        waiting(response.headers.get("retry-after")),
        error.get("param"),
        error.get("request_id", ""),
    )


def volume_request(client: httpx.Client | httpx.AsyncClient, call: VolumeCall, stream: Stream) -> httpx.Request:
    """The request that brings a volume (multipart, one part a file), or takes its job's events up again.

    Each line is waited for alone. The first may come late, where the model looks for structures before it takes up a slice:
    within the deadline that is named.
    """
    if stream.job:
        return client.build_request("GET", f"/v1/volumes/{stream.job}", params={"after": stream.seq})
    body = dict(call.body)
    if call.options.get("model"):
        body["model"] = call.options["model"]
    kind = call.media_type or "application/octet-stream"
    files: list[tuple[str, Any]] = [("volume", ("volume", each, kind)) for each in call.files]
    files.append(("request", (None, _json(body), "application/json")))
    return client.build_request(
        "POST", "/v1/volumes/segment", headers=headers(call.options), files=files, timeout=_timeout(call.options)
    )


def volume_result(call: VolumeCall, stream: Stream, response: httpx.Response) -> VolumeSegmentation:
    """The answer of a job that is done, from the response with its file. Raises MedserveError."""
    if not response.is_success:
        checked(response)
    return stream.result(response.content, model(stream.done["model"]), call.options.get("request_id") or "")


def models(response: httpx.Response) -> tuple[Model, ...]:
    """What is served. Raises MedserveError."""
    return tuple(model(each) for each in checked(response)["models"])


def result(call: Call[R], response: httpx.Response) -> R:
    """The result of a call. Raises MedserveError."""
    body = checked(response)
    # A server around the front may repeat the header.
    ident = response.headers.get("x-request-id", "").split(",")[0].strip()
    common: dict[str, Any] = {
        "model": model(body["model"]),
        "features": body.get("features", ""),
        "stages_ms": body["stages_ms"],
        "request_id": ident,
    }
    made: Any
    if call.returns is Segmentation:
        masks = tuple(_mask(each) for each in body["masks"])
        made = Segmentation(masks=masks, frame=_frame(body["frame"]), image_id=body["image_id"], **common)
    elif call.returns is ImageHandle:
        made = ImageHandle(image_id=body["image_id"], frame=_frame(body["frame"]), expires_in_s=body["expires_in_s"], **common)
    elif call.returns is Classification:
        scores = np.asarray(body["scores"], np.float32)
        made = Classification(labels=tuple(body["labels"]), scores=scores, scoring=body["scoring"], **common)
    else:
        rows = [np.frombuffer(b64decode(each), "<f4") for each in body["embeddings"]]
        made = Embeddings(vectors=np.stack(rows), **common)
    return made  # type: ignore[no-any-return]


def model(body: dict[str, Any]) -> Model:
    """Who answered."""
    extra = {name: body[name] for name in ("licence", "limits", "gates") if name in body}
    names = ("name", "family", "pool", "digest", "engines", "precision", "demonstration")
    return Model(**{name: body[name] for name in names}, prompts=tuple(body.get("prompts", ())), **extra)


def _frame(body: dict[str, Any]) -> Frame:
    spacing, orientation = (None if body[name] is None else tuple(body[name]) for name in ("spacing_mm", "orientation"))
    return Frame(body["width"], body["height"], spacing, orientation, body["modality"])


def _mask(body: dict[str, Any]) -> Mask:
    form = body["format"]
    data = body.get("counts", "").encode("ascii") if form == "rle" else b64decode(body.get(_DATA.get(form, ""), ""))
    polygons = tuple(np.asarray(each, np.float32) for each in body.get("polygons", ()))
    logits = np.frombuffer(b64decode(body["logits"]), "<f2").reshape(256, 256) if "logits" in body else None
    box = None if body["box"] is None else tuple(body["box"])
    height, width = body["size"]
    return Mask(body["object"], body["score"], body["area_px"], box, (height, width), form, data, polygons, logits)
