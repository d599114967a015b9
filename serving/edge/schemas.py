"""The JSON bodies as pydantic models: documentation for OpenAPI. Parsing and rendering are in `wire` and `render`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Numbers4 = Annotated[list[float], Field(min_length=4, max_length=4)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Output = Literal["rle", "png", "polygon", "packed"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class LinearWindow(_Body):
    """Center and width in the image's own units after the Modality LUT."""

    center: float
    width: float


class PercentileWindow(_Body):
    """Percentiles, of the voxels above 0 unless `nonzero` is false."""

    low: float
    high: float
    nonzero: bool = True


class RangeWindow(_Body):
    """minimum..maximum; of the image where not given."""

    minimum: float | None = None
    maximum: float | None = None


class RawLayout(_Body):
    """Raw samples: little-endian, C order."""

    dtype: Literal["uint8", "uint16", "int16", "float32"]
    shape: list[int] = Field(min_length=2, max_length=3)
    """[rows, columns] or [rows, columns, 3]."""


class ImageBody(_Body):
    """An image inline. As a multipart part or as the body itself it needs no base64."""

    data: Base64
    media_type: str = ""
    """image/png, image/jpeg, image/tiff, application/dicom, application/nifti, application/nrrd; empty: told by content."""
    raw: RawLayout | None = None
    index: int | None = Field(default=None, ge=0)
    """Frame of a multi-frame file, slice of a volume."""
    axis: Literal[0, 1, 2] = 2
    """The array axis that `index` counts along."""
    window: LinearWindow | PercentileWindow | RangeWindow | None = None


class ImageRef(_Body):
    """A handle of `POST /v1/images`."""

    image_id: str


class ObjectBody(_Body):
    """Everything said about one object: at least one field."""

    box: Numbers4 | None = None
    """[x0, y0, x1, y1] in pixels of the image as sent."""
    points: list[Annotated[list[float], Field(min_length=2, max_length=3)]] = []
    """[x, y, label]; label 1 is foreground, 0 background."""
    mask: Base64 | None = None
    """Logits of an earlier answer: 256 x 256 little-endian float16 or float32."""


class _MaskOptions(_Body):
    output: Output = "rle"
    multimask: bool = False
    """Three candidate masks an object instead of one."""
    return_logits: bool = False


class SegmentBody(_MaskOptions):
    """Visual prompts. Either `image` or `image_id`."""

    model: str | None = None
    image: ImageBody | Base64 | None = None
    image_id: str | None = None
    boxes: list[Numbers4] = Field(default=[], examples=[[[95, 255, 190, 350]]])
    """One object each."""
    points: list[Annotated[list[float], Field(min_length=2, max_length=3)]] = []
    """Of one object: that of the box, where exactly one is given."""
    mask: Base64 | None = None
    """Earlier logits of the same object."""
    objects: list[ObjectBody] = []
    """The general form, one entry an object."""


class EncodeBody(_Body):
    """Encode ahead."""

    model: str | None = None
    image: ImageBody | Base64


class LabelsBody(_Body):
    """Candidate labels. A template holds one {}."""

    labels: list[str] = Field(examples=[["pleural effusion", "cardiomegaly"]])
    templates: list[str] = []
    negative_templates: list[str] = []


class ClassifyBody(LabelsBody):
    """Images and labels. One of `image`, `image_id`, `images`."""

    model: str | None = None
    image: ImageBody | Base64 | None = None
    image_id: str | None = None
    images: list[ImageBody | ImageRef | Base64] = []


class EmbedBody(_Body):
    """Either images or texts."""

    model: str | None = None
    image: ImageBody | Base64 | None = None
    image_id: str | None = None
    images: list[ImageBody | ImageRef | Base64] = []
    text: str | None = None
    texts: list[str] = Field(default=[], examples=[["a chest radiograph with a pleural effusion"]])
    encoding: Literal["base64", "float"] = "base64"


class TextBody(_Body):
    """A text prompt."""

    text: str


class InferBody(_Body):
    """The one front door: the kind of the prompts chooses the task."""

    model: str | None = None
    image: ImageBody | Base64 | None = None
    image_id: str | None = None
    images: list[ImageBody | ImageRef | Base64] = []
    text: str | None = None
    prompts: list[ObjectBody | LabelsBody | TextBody] = Field(default=[], examples=[[{"box": [95, 255, 190, 350]}]])
    output: Literal["rle", "png", "polygon", "packed", "embedding"] = "rle"
    multimask: bool = False
    return_logits: bool = False
    encoding: Literal["base64", "float"] = "base64"


class ModelLine(_Body):
    """Who answered. `demonstration`: the weights show the plumbing and certify nothing."""

    name: str
    family: str
    pool: str
    digest: str
    engines: dict[str, str]
    precision: str
    demonstration: bool


class ServedModelLine(ModelLine):
    """A model that is served."""

    prompts: list[str]
    limits: dict[str, object]
    licence: str
    source: str
    built_at: str
    gates: dict[str, dict[str, object]]
    """engine/version -> its precision, what the precision gate measured, and why each lower precision was dropped."""


class ModelsAnswer(_Body):
    """What is served."""

    models: list[ServedModelLine]


class FrameBody(_Body):
    """Where the pixels lie. `spacing_mm` x, y; `orientation` row then column direction cosines, LPS."""

    width: int
    height: int
    spacing_mm: list[float] | None
    orientation: list[float] | None
    modality: str


class MaskBody(_Body):
    """One mask. Exactly one of `counts`, `png`, `polygons`, `packed`, by `format`."""

    object: int
    score: float
    """The model's own estimate of its IoU."""
    area_px: int
    box: list[int] | None
    """x0, y0, x1, y1 of the foreground, the last two exclusive; null where the mask is empty."""
    size: list[int]
    """[height, width]."""
    format: Output
    counts: str | None = None
    """COCO's compressed run lengths."""
    png: Base64 | None = None
    polygons: list[list[float]] | None = None
    packed: Base64 | None = None
    """rows x ceil(columns / 8) bytes, most significant bit first, zlib."""
    logits: Base64 | None = None
    """256 x 256 little-endian float16, where asked for."""


class _Answer(_Body):
    model: ModelLine
    stages_ms: dict[str, float]
    features: Literal["hit", "miss", "coalesced"] | None = None
    """Where the image's Features came from."""


class SegmentAnswer(_Answer):
    """Masks in the order of the objects."""

    masks: list[MaskBody]
    frame: FrameBody
    image_id: str
    """A handle for further prompts on this image."""


class ImageAnswer(_Answer):
    """A handle."""

    image_id: str
    frame: FrameBody
    expires_in_s: float


class ClassifyAnswer(_Answer):
    """`scores`: images x labels."""

    labels: list[str]
    scores: list[list[float]]
    scoring: str


class EmbedAnswer(_Answer):
    """L2-normalised vectors: base64 of little-endian float32, or numbers where `encoding` is float."""

    embeddings: list[Base64] | list[list[float]]
    dimensions: int
    encoding: Literal["base64", "float"]


class SegmentInferAnswer(SegmentAnswer):
    """What boxes, points and masks get."""

    task: Literal["segment"]


class ClassifyInferAnswer(ClassifyAnswer):
    """What labels get."""

    task: Literal["classify"]


class EmbedInferAnswer(EmbedAnswer):
    """What texts, and images with the output "embedding", get."""

    task: Literal["embed"]


class ReadyAnswer(_Body):
    """Pool or engine -> "ready", or one line that says why not."""

    ready: bool
    parts: dict[str, str]


class ErrorLine(_Body):
    """`code` is one of docs/errors.md; `param` names the field."""

    code: str
    message: str
    param: str | None
    request_id: str


class ErrorAnswer(_Body):
    """Every failure."""

    error: ErrorLine
