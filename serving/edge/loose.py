"""Query parameters and simple form fields -> the plain body that JSON would have been, for users of curl.

A value that starts with ``[`` or ``{`` is JSON. Otherwise ``boxes=x0,y0,x1,y1;...``, ``points=x,y,label;...``,
``window=center,width``, ``shape=rows,columns``; ``labels``, ``texts`` and templates are repeated parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from serving.edge.fields import invalid
from serving.errors import Fault, Kind

IMAGE_FIELDS = ("index", "axis", "window", "media_type", "dtype", "shape")
_REPEATED = ("labels", "classes", "texts", "templates", "negative_templates")


def body(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(body, what is said of the image) from name and value pairs. Raises Fault."""
    said: dict[str, Any] = {}
    image: dict[str, Any] = {}
    for name, text in pairs:
        value = _value(name, text)
        if name in ("dtype", "shape"):
            image.setdefault("raw", {})[name] = value
        elif name in IMAGE_FIELDS:
            image[name] = value
        elif name in _REPEATED and isinstance(value, str):
            said.setdefault(name, []).append(value)
        elif name in said:
            if not (isinstance(value, list) and isinstance(said[name], list)):
                raise invalid(name, "is given twice")
            said[name].extend(value)
        else:
            said[name] = value
    return said, image


def _value(name: str, text: str) -> Any:
    if text[:1] in ("[", "{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            raise Fault(Kind.MALFORMED, f"{name} is not valid JSON", param=name) from exc
    reader = _READERS.get(name)
    return text if reader is None else reader(name, text)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as exc:
        raise invalid(name, "must be numbers with commas between") from exc


def _rows(name: str, text: str) -> list[list[float]]:
    return [_numbers(name, row) for row in text.split(";") if row.strip()]


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise invalid(name, "must be a whole number") from exc


def _integers(name: str, text: str) -> list[int]:
    return [_integer(name, each) for each in text.split(",")]


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise invalid(name, "must be true or false")
    return text.lower() in ("true", "1")


def _window(name: str, text: str) -> dict[str, float]:
    numbers = _numbers(name, text)
    if len(numbers) != 2:
        raise invalid(name, "must be center,width or a JSON object")
    return {"center": numbers[0], "width": numbers[1]}


_READERS: dict[str, Callable[[str, str], Any]] = {
    "boxes": _rows,
    "points": _rows,
    "index": _integer,
    "axis": _integer,
    "shape": _integers,
    "window": _window,
    "slice": _integer,
    "keep": _flag,
    "multimask": _flag,
    "return_logits": _flag,
}
