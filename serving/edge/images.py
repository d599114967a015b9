"""Images on the wire -> EncodedImage or ImageHandle. Nothing is decoded here."""

from __future__ import annotations

from serving.domain.image import (
    EncodedImage,
    ImageHandle,
    ImageSource,
    LinearWindow,
    PercentileWindow,
    RangeWindow,
    RawLayout,
    View,
    Window,
)
from serving.edge.fields import Fields, invalid
from serving.errors import Fault, Kind

IMAGE_FIELDS = ("data", "media_type", "raw", "index", "axis", "window")
MAX_HANDLE_CHARS = 512
_WINDOWS = (("center", "width"), ("low", "high", "nonzero"), ("minimum", "maximum"))


def encoded(value: object, param: str = "image") -> EncodedImage:
    """An image object, or base64 text alone. Raises Fault."""
    if isinstance(value, str | bytes):
        value = {"data": value}
    fields = Fields(value, param, IMAGE_FIELDS)
    data = fields.binary("data")
    if data is None:
        raise invalid(fields.param("data"), "is missing: send the image's bytes")
    raw = layout(fields.get("raw"), fields.param("raw")) if fields.has("raw") else None
    return EncodedImage(data, fields.text("media_type"), raw, view(fields))


def source(value: object, param: str = "image") -> ImageSource:
    """An image, or ``{"image_id": ...}``. Raises Fault."""
    if isinstance(value, dict) and "image_id" in value:
        return handle(Fields(value, param, ("image_id",)).text("image_id"))
    return encoded(value, param)


def handle(text: str) -> ImageHandle:
    """A handle. Raises Fault(UNKNOWN_HANDLE) where it cannot be one that was given out."""
    if not text or len(text) > MAX_HANDLE_CHARS or not (text.isascii() and text.isprintable()):
        raise Fault(Kind.UNKNOWN_HANDLE, "this image_id was not given out here: send the image again", param="image_id")
    return ImageHandle(text)


def view(fields: Fields) -> View:
    """Which picture of the file, and its window. Raises Fault."""
    axis = fields.integer("axis")
    chosen = window(fields.get("window"), fields.param("window")) if fields.has("window") else None
    return View(fields.integer("index"), 2 if axis is None else axis, chosen)


def layout(value: object, param: str) -> RawLayout:
    """dtype and shape of raw samples. Raises Fault."""
    fields = Fields(value, param, ("dtype", "shape"))
    shape = fields.items("shape")
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        raise invalid(fields.param("shape"), "must be [rows, columns] or [rows, columns, 3]")
    return RawLayout(fields.text("dtype"), tuple(shape))  # type: ignore[arg-type]  # RawLayout checks the dtype itself


def window(value: object, param: str) -> Window:
    """{center, width}, {low, high, nonzero} in percent, or {minimum, maximum}. Raises Fault."""
    given = value.keys() if isinstance(value, dict) else ()
    for names in _WINDOWS:
        if given and not set(given) - set(names):
            return _window(Fields(value, param, names), names)
    raise invalid(param, "must be {center, width}, {low, high, nonzero} or {minimum, maximum}")


def _window(fields: Fields, names: tuple[str, ...]) -> Window:
    first, second = fields.number(names[0]), fields.number(names[1])
    if names[0] == "minimum":
        return RangeWindow(first, second)
    if first is None or second is None:
        raise invalid(fields.param(names[0] if first is None else names[1]), "is missing")
    if names[0] == "center":
        return LinearWindow(first, second)
    return PercentileWindow(first, second, fields.flag("nonzero", True))
