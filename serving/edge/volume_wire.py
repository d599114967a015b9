"""A plain body (from JSON, a form or protobuf) -> what is asked of a volume. Both fronts parse with this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.domain.answer import EncodedMask
from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import MaskFormat
from serving.domain.volume import ClassNames, EncodedVolume, KeyMask, SegmentVolume, VolumeFormat, VolumeObject
from serving.edge import images, limits, prompts, wire
from serving.edge.fields import Fields, invalid, number, sequence
from serving.errors import Fault, Kind
from serving.imaging import masks
from serving.settings import LimitSettings

FIELDS = (
    *("model", "volume", "volumes", "boxes", "slice", "objects", "classes", "supports"),
    *("window", "axis", "output", "keep", "media_type"),
)
OBJECT_FIELDS = ("box", "points", "mask", "slice", "first", "last", "label")
_BOX = "must be six numbers [x0, y0, z0, x1, y1, z1], z whole slices, both included; or four with a slice"


@dataclass(frozen=True)
class VolumeAsk:
    """What a body asks for. `keep`: the job goes on when the client leaves."""

    task: SegmentVolume
    model: str | None
    keep: bool


def segment_volume(body: Mapping[str, Any], most: LimitSettings) -> VolumeAsk:
    """A volume and objects in it. Raises Fault."""
    fields = Fields(body, "", FIELDS)
    said = fields.items("boxes"), fields.items("objects")
    limits.count(sum(map(len, said)), most.max_objects, "objects")
    common = _slice(fields, "slice")
    found = [_box(each, f"boxes[{n}]", common) for n, each in enumerate(said[0])]
    found += [_object(each, f"objects[{n}]", most) for n, each in enumerate(said[1])]
    axis = fields.integer("axis")
    asked = _classes(fields, most) or tuple(found)
    if found and not isinstance(asked, tuple):
        raise invalid("classes", "goes without boxes and objects: the support set says where to look")
    task = SegmentVolume(_volume(fields), asked, 2 if axis is None else axis, _output(fields))
    return VolumeAsk(task, wire.model(fields), fields.flag("keep"))


def _classes(fields: Fields, most: LimitSettings) -> ClassNames | None:
    """`classes`: names of structures, with `supports`, the name of a support set."""
    given, supports = fields.items("classes"), fields.text("supports")
    if not given:
        if supports:
            raise invalid("classes", "needs the names of the structures to be found")
        return None
    limits.count(len(given), most.max_objects, "classes")
    if not all(isinstance(name, str) and len(name) <= most.max_text_chars for name in given):
        raise invalid("classes", "must be a list of names")
    return ClassNames(tuple(given), supports)


def _volume(fields: Fields) -> EncodedVolume:
    """`volume`: bytes, base64 text or {data, media_type}; `volumes`: the files of a series as a list of these."""
    if fields.has("volume") == fields.has("volumes"):
        raise Fault(Kind.INVALID, "send either volume or volumes, the files of one series", param="volume")
    given = fields.items("volumes") or [fields.get("volume")]
    media_type, files = fields.text("media_type"), []
    for n, each in enumerate(given):
        where = "volume" if fields.has("volume") else f"volumes[{n}]"
        one = Fields(each if isinstance(each, Mapping) else {"data": each}, where, ("data", "media_type"))
        data = one.binary("data")
        if data is None:
            raise invalid(one.param("data"), "is missing: send the volume's bytes")
        files.append(data)
        media_type = one.text("media_type") or media_type
    window = images.window(fields.get("window"), "window") if fields.has("window") else None
    return EncodedVolume(tuple(files), media_type, window)


def _box(value: object, where: str, index: int | None) -> VolumeObject:
    box, first, last = _corners(value, where)
    if first is None and index is None:
        raise invalid(where, _BOX)
    return VolumeObject(ObjectPrompt(box=box), index, first, last)


def _object(value: object, where: str, most: LimitSettings) -> VolumeObject:
    fields = Fields(value, where, OBJECT_FIELDS)
    first, last = _slice(fields, "first"), _slice(fields, "last")
    box = None
    if fields.has("box"):
        box, low, high = _corners(fields.get("box"), fields.param("box"))
        if low is not None and first is not None:
            raise invalid(fields.param("first"), "is said by the box already")
        first, last = (first, last) if low is None else (low, high)
    shown: ObjectPrompt | KeyMask
    if fields.has("mask"):
        if box is not None or fields.has("points"):
            raise invalid(fields.param("mask"), "goes alone: a mask on the key slice says all that a box and points would")
        shown = KeyMask(_mask(fields, most))
    else:
        points = prompts.one({"points": fields.items("points")}, where, most).points if fields.items("points") else ()
        shown = ObjectPrompt(box, points)
    return VolumeObject(shown, _slice(fields, "slice"), first, last, label=_label(fields, most))


def _corners(value: object, where: str) -> tuple[Box, int | None, int | None]:
    given = [number(each, where) for each in sequence(value, where, _BOX)]
    if len(given) == 4:
        return Box(*given), None, None
    if len(given) != 6 or any(z != int(z) for z in (given[2], given[5]) if abs(z) < 1e9):
        raise invalid(where, _BOX)
    x0, y0, z0, x1, y1, z1 = given
    if not (0 <= z0 <= 1e9 and 0 <= z1 <= 1e9):
        raise invalid(where, "names slices that are not there: slices are numbered from 0")
    return Box(x0, y0, x1, y1), int(z0), int(z1)


def _mask(fields: Fields, most: LimitSettings) -> Any:
    """COCO's {size: [height, width], counts} -> (rows, columns) bool."""
    said = Fields(fields.get("mask"), fields.param("mask"), ("size", "counts"))
    size: Sequence[Any] = said.items("size")
    counts = said.text("counts")
    whole = len(size) == 2 and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size)
    if not whole or size[0] * size[1] > most.max_pixels or not counts.isascii():
        raise invalid(said.param("size"), "must be [height, width] of the key slice, beside COCO's compressed counts")
    height, width = size
    encoded = EncodedMask(MaskFormat.RLE, (width, height), counts.encode(), 0, None)
    return masks.decode(encoded)


def _label(fields: Fields, most: LimitSettings) -> int | None:
    found = fields.integer("label")
    if found is not None and not 0 <= found < most.max_objects:
        raise invalid(fields.param("label"), f"must be an object's number, 0 to {most.max_objects - 1}")
    return found


def _slice(fields: Fields, name: str) -> int | None:
    found = fields.integer(name)
    if found is not None and found < 0:
        raise invalid(fields.param(name), "must be a slice's number, from 0")
    return found


def _output(fields: Fields) -> VolumeFormat:
    try:
        return VolumeFormat(fields.text("output", VolumeFormat.NIFTI.value))
    except ValueError as exc:
        raise invalid("output", f"must be one of {', '.join(each.value for each in VolumeFormat)}") from exc
