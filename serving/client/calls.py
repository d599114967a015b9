"""A method's arguments -> a Call, the same for HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from serving.client.results import Answer, Classification, Embeddings, ImageHandle, Segmentation

Pixels = npt.NDArray[Any]
ImageInput = str | PathLike[str] | bytes | Pixels | ImageHandle
"""A path, a file's bytes, pixels ((rows, columns) or (rows, columns, 3); uint8, uint16, int16, float32), or a handle."""

R = TypeVar("R", bound=Answer)
_MEDIA = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".dcm": "application/dicom",
    ".nii": "application/nifti",
    ".nii.gz": "application/nifti",
    ".nrrd": "application/nrrd",
}
_VIEW = ("index", "axis", "window")


class Options(TypedDict, total=False):
    """What every call takes. `request_id`: yours, for the server's log."""

    model: str | None
    deadline_s: float | None
    priority: Literal["interactive", "bulk"]
    request_id: str


class ViewOptions(Options, total=False):
    """Which picture of the file. `window`: {center, width}, {low, high, nonzero} in percent, or {minimum, maximum}."""

    index: int
    axis: int
    window: dict[str, Any]


class SegmentOptions(ViewOptions, total=False):
    """`boxes`: one object each. `points` (x, y[, label]) and `mask` (earlier logits): of one object. `objects`: any."""

    image_id: str
    boxes: Sequence[Sequence[float]]
    points: Sequence[Sequence[float]]
    mask: Pixels
    objects: Sequence[dict[str, Any]]
    multimask: bool
    output: Literal["rle", "png", "polygon", "packed"]
    return_logits: bool


class ClassifyOptions(ViewOptions, total=False):
    """A template holds one {} for the label; `negative_templates` are for pair models."""

    templates: Sequence[str]
    negative_templates: Sequence[str]


@dataclass(frozen=True)
class Upload:
    """An image's bytes and what is said of them."""

    data: bytes
    said: dict[str, Any]


@dataclass(frozen=True)
class Call(Generic[R]):
    """One call: its name, its plain body (`mask` as bytes), its images, what comes back, and the caller's options."""

    name: Literal["segment", "images", "image", "forget", "classify", "embed"]
    returns: type[R]
    body: dict[str, Any]
    uploads: tuple[Upload, ...] = ()
    handles: tuple[str, ...] = ()
    options: Options = field(default_factory=lambda: Options())


def segment(image: ImageInput | None, **said: Unpack[SegmentOptions]) -> Call[Segmentation]:
    """Visual prompts."""
    body, options, view = _sort(dict(said))
    given = body.pop("image_id", None)
    if (image is None) == (given is None):
        raise ValueError("give either image or image_id")
    if "mask" in body:
        body["mask"] = _logits(body["mask"])
    if len(body.get("boxes", ())) > 1 and ("points" in body or "mask" in body):
        raise ValueError("points or mask beside several boxes: say whose they are with objects")
    for name in ("boxes", "points"):
        if name in body:
            body[name] = [[float(v) for v in row] for row in body[name]]
    if "objects" in body:
        body["objects"] = [{**each, "mask": _logits(each["mask"])} if "mask" in each else each for each in body["objects"]]
    uploads, handles = ((), (given,)) if given is not None else _images([image], view)
    return Call("segment", Segmentation, body, uploads, handles, options)


def encode_image(image: ImageInput, **said: Unpack[ViewOptions]) -> Call[ImageHandle]:
    """An image to a handle."""
    body, options, view = _sort(dict(said))
    uploads, handles = _images([image], view)
    if handles:
        raise ValueError("this image is encoded already")
    return Call("images", ImageHandle, body, uploads, (), options)


def image(image_id: str, drop: bool, **said: Unpack[Options]) -> Call[ImageHandle]:
    """A handle, looked up or forgotten."""
    _, options, _ = _sort(dict(said))
    return Call("forget" if drop else "image", ImageHandle, {}, (), (image_id,), options)


def classify(
    images: ImageInput | Sequence[ImageInput], labels: Sequence[str], **said: Unpack[ClassifyOptions]
) -> Call[Classification]:
    """Images and labels."""
    body, options, view = _sort(dict(said))
    body = {name: list(value) for name, value in body.items()}
    uploads, handles = _images(_listed(images), view)
    return Call("classify", Classification, {**body, "labels": list(labels)}, uploads, handles, options)


def embed(
    images: ImageInput | Sequence[ImageInput] = (), texts: Sequence[str] = (), **said: Unpack[ViewOptions]
) -> Call[Embeddings]:
    """Images or texts."""
    body, options, view = _sort(dict(said))
    uploads, handles = _images(_listed(images), view)
    if texts:
        body["texts"] = [texts] if isinstance(texts, str) else list(texts)
    return Call("embed", Embeddings, body, uploads, handles, options)


def _sort(said: dict[str, Any]) -> tuple[dict[str, Any], Options, dict[str, Any]]:
    """(body, options, view) of the keyword arguments that were given."""
    given = {name: value for name, value in said.items() if value is not None}
    options = Options(**{name: given.pop(name) for name in tuple(given) if name in Options.__annotations__})  # type: ignore[typeddict-item]
    view = {name: given.pop(name) for name in _VIEW if name in given}
    return given, options, view


def _listed(images: ImageInput | Sequence[ImageInput]) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _images(images: Sequence[Any], view: dict[str, Any]) -> tuple[tuple[Upload, ...], tuple[str, ...]]:
    handles = tuple(each.image_id for each in images if isinstance(each, ImageHandle))
    if handles and len(handles) < len(images):
        raise ValueError("give either handles or images in one call, not both")
    return (() if handles else tuple(_upload(each, view) for each in images)), handles


def _upload(image: Any, view: dict[str, Any]) -> Upload:
    if isinstance(image, bytes):
        return Upload(image, dict(view))
    if isinstance(image, np.ndarray):
        raw = {"dtype": image.dtype.name, "shape": list(image.shape)}
        data = np.ascontiguousarray(image, image.dtype.newbyteorder("<")).tobytes()
        return Upload(data, {**view, "media_type": "application/octet-stream", "raw": raw})
    path = Path(image)
    kind = next((media for suffix, media in _MEDIA.items() if path.name.lower().endswith(suffix)), "")
    return Upload(path.read_bytes(), {**view, **({"media_type": kind} if kind else {})})


def _logits(values: Any) -> bytes:
    """(256, 256) logits as little-endian float16 where they came as such, else float32."""
    array = np.asarray(values)
    return array.astype("<f2" if array.dtype == np.float16 else "<f4").tobytes()
