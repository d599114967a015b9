"""A plain body (from JSON, a form or protobuf) -> what is asked. Both fronts parse with these functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.domain.image import ImageSource
from serving.domain.prompt import ObjectPrompt
from serving.domain.request import Classify, Embed, Encode, Lookup, MaskFormat, Segment, Task
from serving.edge import images, limits, prompts
from serving.edge.fields import Fields, invalid
from serving.errors import Fault, Kind
from serving.settings import LimitSettings

_ONE_IMAGE = ("image", "image_id")
_IMAGES = (*_ONE_IMAGE, "images")
_MASKS = ("output", "multimask", "return_logits")
_LABELS = ("labels", "templates", "negative_templates")

SEGMENT_FIELDS = ("model", *_ONE_IMAGE, "boxes", "points", "objects", "mask", *_MASKS)
ENCODE_FIELDS = ("model", "image")
CLASSIFY_FIELDS = ("model", *_IMAGES, *_LABELS)
EMBED_FIELDS = ("model", *_IMAGES, "text", "texts", "encoding")
INFER_FIELDS = ("model", *_IMAGES, "text", "prompts", "encoding", *_MASKS)
EMBEDDING = "embedding"


@dataclass(frozen=True)
class Ask:
    """What a body asks for. `encoding`: how vectors leave in JSON."""

    task: Task
    model: str | None = None
    encoding: Literal["base64", "float"] = "base64"


Parse = Callable[[Mapping[str, Any], LimitSettings], Ask]


def segment(body: Mapping[str, Any], most: LimitSettings) -> Ask:
    """Visual prompts -> Segment. Raises Fault."""
    fields = Fields(body, "", SEGMENT_FIELDS)
    said = prompts.objects(fields, most)
    return Ask(_segment(fields, _image(fields), said), model(fields))


def encode(body: Mapping[str, Any], most: LimitSettings) -> Ask:
    """An image -> Encode. Raises Fault."""
    fields = Fields(body, "", ENCODE_FIELDS)
    if not fields.has("image"):
        raise Fault(Kind.INVALID, "no image: send its bytes", param="image")
    return Ask(Encode(images.encoded(fields.get("image"))), model(fields))


def classify(body: Mapping[str, Any], most: LimitSettings) -> Ask:
    """Images and labels -> Classify. Raises Fault."""
    fields = Fields(body, "", CLASSIFY_FIELDS)
    said = prompts.labels(fields, most)
    return Ask(Classify(_several(fields, most), said), model(fields))


def embed(body: Mapping[str, Any], most: LimitSettings) -> Ask:
    """Images or texts -> Embed. Raises Fault."""
    fields = Fields(body, "", EMBED_FIELDS)
    given = [*([fields.get("text")] if fields.has("text") else []), *fields.items("texts")]
    texts = limits.texts(given, most, "texts")
    return Ask(Embed(_several(fields, most), texts), model(fields), _encoding(fields))


def infer(body: Mapping[str, Any], most: LimitSettings) -> Ask:
    """The one front door: the kind of the prompts chooses the task. Raises Fault.

    Objects -> Segment; labels -> Classify; text -> Embed; images with the output "embedding" and no prompt -> Embed.
    """
    fields = Fields(body, "", INFER_FIELDS)
    given = fields.items("prompts")
    limits.count(len(given), most.max_objects, "prompts")
    visual = [(n, each) for n, each in enumerate(given) if isinstance(each, dict) and set(each) & {"box", "points", "mask"}]
    labelled = [(n, each) for n, each in enumerate(given) if isinstance(each, dict) and "labels" in each]
    texts = [each["text"] for each in given if isinstance(each, dict) and "text" in each and len(each) == 1]
    if len(visual) + len(labelled) + len(texts) != len(given):
        raise invalid("prompts", "must each be {box, points, mask}, {labels, templates, negative_templates} or {text}")
    if fields.has("text"):
        texts.append(fields.get("text"))
    if sum(map(bool, (visual, labelled, texts))) > 1 or len(labelled) > 1:
        raise invalid("prompts", "must be of one kind: objects, or one set of labels, or texts")
    found = _several(fields, most)
    if visual:
        said = tuple(prompts.one(each, f"prompts[{n}]", most) for n, each in visual)
        if len(found) != 1:
            raise invalid("image", "must be exactly one for boxes, points and masks")
        return Ask(_segment(fields, found[0], said), model(fields))
    if labelled:
        n, each = labelled[0]
        said_labels = prompts.labels(Fields(each, f"prompts[{n}]", _LABELS), most)
        return Ask(Classify(found, said_labels), model(fields))
    if texts and found:
        raise invalid("prompts", "with an image must be boxes, points or a mask to segment it, or labels to score it; not text")
    if not texts and fields.text("output") != EMBEDDING:
        raise Fault(Kind.INVALID, "no prompt: send boxes, points, a mask, labels or text", param="prompts")
    return Ask(Embed(found, limits.texts(texts, most, "prompts")), model(fields), _encoding(fields))


def lookup(image_id: str, *, drop: bool, model: str | None) -> Ask:
    """A handle -> Lookup. Raises Fault."""
    return Ask(Lookup(images.handle(image_id), drop), model or None)


def model(fields: Fields) -> str | None:
    """The model asked for, or None."""
    return fields.text("model") or None


def _segment(fields: Fields, image: ImageSource, said: tuple[ObjectPrompt, ...]) -> Segment:
    try:
        output = MaskFormat(fields.text("output", MaskFormat.RLE.value))
    except ValueError as exc:
        raise invalid("output", f"must be one of {', '.join(each.value for each in MaskFormat)}") from exc
    return Segment(image, said, fields.flag("multimask"), output, fields.flag("return_logits"))


def _image(fields: Fields) -> ImageSource:
    if fields.has("image") == fields.has("image_id"):
        raise Fault(Kind.INVALID, "send either image or image_id", param="image")
    return images.source(fields.get("image")) if fields.has("image") else images.handle(fields.text("image_id"))


def _several(fields: Fields, most: LimitSettings) -> tuple[ImageSource, ...]:
    given = fields.items("images")
    limits.count(len(given), most.max_images, "images")
    one = (_image(fields),) if fields.has("image") or fields.has("image_id") else ()
    if one and given:
        raise Fault(Kind.INVALID, "send either image or images", param="images")
    return one or tuple(images.source(each, f"images[{n}]") for n, each in enumerate(given))


def _encoding(fields: Fields) -> Literal["base64", "float"]:
    match fields.text("encoding", "base64"):
        case "base64":
            return "base64"
        case "float":
            return "float"
        case _:
            raise invalid("encoding", "must be base64 or float")
