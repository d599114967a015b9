"""The OpenAPI document: FastAPI's, with the bodies that the fronts read themselves put in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving import __version__
from serving.edge import schemas, volume_schemas
from serving.edge.http_body import IMAGE_TYPES
from serving.edge.volume_body import TYPES as VOLUME_TYPES

REF = "#/components/schemas/{model}"
BODIES: dict[str, type[BaseModel]] = {
    "/v1/infer": schemas.InferBody,
    "/v1/segment": schemas.SegmentBody,
    "/v1/images": schemas.EncodeBody,
    "/v1/classify": schemas.ClassifyBody,
    "/v1/embed": schemas.EmbedBody,
    "/v1/volumes/segment": volume_schemas.VolumeBody,
}
HEADERS = {
    "X-Request-ID": "Yours, echoed: up to 128 printable characters.",
    "X-Deadline-Ms": "Milliseconds from now; the work is dropped when they have passed.",
    "X-Priority": "interactive (default) or bulk.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application."""
    made = get_openapi(
        title="medserve",
        version=__version__,
        description="Promptable foundation models of medical imaging. Research use; not a medical device.",
        routes=app.routes,
    )
    written: list[type[BaseModel]] = [*BODIES.values(), volume_schemas.VolumeEventLine]
    _, defs = models_json_schema([(each, "validation") for each in written], ref_template=REF)
    made.setdefault("components", {}).setdefault("schemas", {}).update(defs["$defs"])
    made["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, body in BODIES.items():
        operation = made["paths"][path]["post"]
        operation["requestBody"] = {"required": True, "content": _content(body)}
        operation["security"] = [{}, {"bearer": []}]
        operation.setdefault("parameters", []).extend(
            {"name": name, "in": "header", "required": False, "description": said, "schema": {"type": "string"}}
            for name, said in HEADERS.items()
        )
    return made


def _content(body: type[BaseModel]) -> dict[str, Any]:
    ref = {"$ref": REF.format(model=body.__name__)}
    if body is volume_schemas.VolumeBody:
        return _volume_content(ref)
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "description": "`image` (or several `images`) as files; the rest as JSON in `request`, or as simple form fields.",
        "properties": {"image": file, "images": {"type": "array", "items": file}, "request": ref},
    }
    bare = {"schema": file, "description": "The image itself; prompts as query parameters (boxes=x0,y0,x1,y1;...)."}
    kinds = ("image/*", *IMAGE_TYPES)
    return {
        "application/json": {"schema": ref},
        "multipart/form-data": {"schema": form, "encoding": {"request": {"contentType": "application/json"}}},
        **dict.fromkeys(kinds, bare),
    }


def _volume_content(ref: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "description": "`volume` as a file, or the files of a DICOM series as several; the rest as JSON in `request`.",
        "properties": {"volume": {"type": "array", "items": file}, "request": ref},
    }
    bare = {"schema": file, "description": "The volume itself; prompts as query parameters (boxes=x0,y0,z0,x1,y1,z1;...)."}
    return {
        "application/json": {"schema": ref},
        "multipart/form-data": {"schema": form, "encoding": {"request": {"contentType": "application/json"}}},
        **dict.fromkeys(VOLUME_TYPES, bare),
    }
