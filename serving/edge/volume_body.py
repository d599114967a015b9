"""The body of an HTTP request that brings a volume -> the plain body, whatever way it was sent."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from serving.edge import http_body, limits, loose, multipart
from serving.edge.desk import off_loop
from serving.edge.fields import invalid
from serving.edge.volume_wire import VolumeAsk, segment_volume
from serving.errors import Fault, Kind
from serving.settings import Settings

TYPES = (
    *("application/nifti", "application/x-nifti", "application/nrrd", "application/x-nrrd", "application/dicom"),
    *("application/gzip", "application/zip", "application/octet-stream"),
)
"""Media types of a body that is the volume itself."""
_EXPECTED = "Content-Type must be application/json, multipart/form-data, or one of " + ", ".join(TYPES)


async def ask(request: Request, settings: Settings) -> VolumeAsk:
    """Read the body and parse it, in a thread where it is large. Raises Fault."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.split(";", 1)[0].strip().lower()
    most = settings.limits.model_copy(update={"max_body_bytes": settings.volumes.max_body_bytes})
    if kind not in ("application/json", "multipart/form-data", *TYPES):
        raise Fault(Kind.UNSUPPORTED_MEDIA, _EXPECTED, param="content-type")
    data = await http_body.read(request, most)

    def work() -> VolumeAsk:
        if kind == "application/json":
            body = http_body.from_json(data)
        elif kind == "multipart/form-data":
            body = _from_parts(data, content_type, settings.volumes.max_files)
        else:
            said, image = loose.body(request.query_params.multi_items())
            body = {**said, **image, "volume": {"data": data, "media_type": kind}}
        return segment_volume(body, most)

    return await off_loop(len(data), work)


def _from_parts(data: bytes, content_type: str, most_files: int) -> dict[str, Any]:
    """Files `volume` (one, or the several of a series), a JSON part `request`, and simple form fields. Raises Fault."""
    files: list[multipart.Part] = []
    pairs: list[tuple[str, str]] = []
    body: dict[str, Any] = {}
    for part in multipart.split(data, multipart.boundary(content_type), most_files + multipart.MAX_PARTS):
        if part.name in ("volume", "volumes"):
            files.append(part)
        elif part.name == "request":
            body = http_body.from_json(part.data)
        else:
            pairs.append((part.name, http_body.text_of(part)))
    limits.count(len(files), most_files, "volume")
    said, image = loose.body(pairs)
    if twice := {*said, *image} & body.keys():
        raise invalid(min(twice), "is given both in request and as a form field")
    found = [{"data": part.data, "media_type": _media(part)} for part in files]
    held = {"volume": found[0]} if len(found) == 1 else {"volumes": found} if found else {}
    return {**body, **said, **image, **held}


def _media(part: multipart.Part) -> str:
    return "" if part.media_type in ("application/octet-stream", "text/plain") else part.media_type
