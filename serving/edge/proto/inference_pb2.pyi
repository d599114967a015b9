from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MaskFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORMAT_UNSPECIFIED: _ClassVar[MaskFormat]
    RLE: _ClassVar[MaskFormat]
    PNG: _ClassVar[MaskFormat]
    POLYGON: _ClassVar[MaskFormat]
    PACKED: _ClassVar[MaskFormat]

class VolumeFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOLUME_FORMAT_UNSPECIFIED: _ClassVar[VolumeFormat]
    VOLUME_NIFTI: _ClassVar[VolumeFormat]
    VOLUME_NRRD: _ClassVar[VolumeFormat]
    VOLUME_PACKED: _ClassVar[VolumeFormat]
MASK_FORMAT_UNSPECIFIED: MaskFormat
RLE: MaskFormat
PNG: MaskFormat
POLYGON: MaskFormat
PACKED: MaskFormat
VOLUME_FORMAT_UNSPECIFIED: VolumeFormat
VOLUME_NIFTI: VolumeFormat
VOLUME_NRRD: VolumeFormat
VOLUME_PACKED: VolumeFormat

class Window(_message.Message):
    __slots__ = ("linear", "percentile", "range")
    class Linear(_message.Message):
        __slots__ = ("center", "width")
        CENTER_FIELD_NUMBER: _ClassVar[int]
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        center: float
        width: float
        def __init__(self, center: _Optional[float] = ..., width: _Optional[float] = ...) -> None: ...
    class Percentile(_message.Message):
        __slots__ = ("low", "high", "nonzero")
        LOW_FIELD_NUMBER: _ClassVar[int]
        HIGH_FIELD_NUMBER: _ClassVar[int]
        NONZERO_FIELD_NUMBER: _ClassVar[int]
        low: float
        high: float
        nonzero: bool
        def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., nonzero: _Optional[bool] = ...) -> None: ...
    class Range(_message.Message):
        __slots__ = ("minimum", "maximum")
        MINIMUM_FIELD_NUMBER: _ClassVar[int]
        MAXIMUM_FIELD_NUMBER: _ClassVar[int]
        minimum: float
        maximum: float
        def __init__(self, minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    linear: Window.Linear
    percentile: Window.Percentile
    range: Window.Range
    def __init__(self, linear: _Optional[_Union[Window.Linear, _Mapping]] = ..., percentile: _Optional[_Union[Window.Percentile, _Mapping]] = ..., range: _Optional[_Union[Window.Range, _Mapping]] = ...) -> None: ...

class RawLayout(_message.Message):
    __slots__ = ("dtype", "shape")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("data", "media_type", "raw", "index", "axis", "window")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    media_type: str
    raw: RawLayout
    index: int
    axis: int
    window: Window
    def __init__(self, data: _Optional[bytes] = ..., media_type: _Optional[str] = ..., raw: _Optional[_Union[RawLayout, _Mapping]] = ..., index: _Optional[int] = ..., axis: _Optional[int] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class ImageSource(_message.Message):
    __slots__ = ("image", "image_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    image: Image
    image_id: str
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., image_id: _Optional[str] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x0", "y0", "x1", "y1")
    X0_FIELD_NUMBER: _ClassVar[int]
    Y0_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    x0: float
    y0: float
    x1: float
    y1: float
    def __init__(self, x0: _Optional[float] = ..., y0: _Optional[float] = ..., x1: _Optional[float] = ..., y1: _Optional[float] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y", "negative")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    negative: bool
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., negative: _Optional[bool] = ...) -> None: ...

class ObjectPrompt(_message.Message):
    __slots__ = ("box", "points", "mask")
    BOX_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    box: Box
    points: _containers.RepeatedCompositeFieldContainer[Point]
    mask: bytes
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., mask: _Optional[bytes] = ...) -> None: ...

class Labels(_message.Message):
    __slots__ = ("names", "templates", "negative_templates")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    templates: _containers.RepeatedScalarFieldContainer[str]
    negative_templates: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., templates: _Optional[_Iterable[str]] = ..., negative_templates: _Optional[_Iterable[str]] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("object", "labels", "text")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    object: ObjectPrompt
    labels: Labels
    text: str
    def __init__(self, object: _Optional[_Union[ObjectPrompt, _Mapping]] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "family", "pool", "digest", "engines", "precision", "demonstration")
    class EnginesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEMONSTRATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    family: str
    pool: str
    digest: str
    engines: _containers.ScalarMap[str, str]
    precision: str
    demonstration: bool
    def __init__(self, name: _Optional[str] = ..., family: _Optional[str] = ..., pool: _Optional[str] = ..., digest: _Optional[str] = ..., engines: _Optional[_Mapping[str, str]] = ..., precision: _Optional[str] = ..., demonstration: _Optional[bool] = ...) -> None: ...

class Meta(_message.Message):
    __slots__ = ("model", "features", "stages_ms", "request_id")
    class StagesMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    STAGES_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    model: Model
    features: str
    stages_ms: _containers.ScalarMap[str, float]
    request_id: str
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., features: _Optional[str] = ..., stages_ms: _Optional[_Mapping[str, float]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("width", "height", "spacing_mm", "orientation", "modality")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SPACING_MM_FIELD_NUMBER: _ClassVar[int]
    ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    spacing_mm: _containers.RepeatedScalarFieldContainer[float]
    orientation: _containers.RepeatedScalarFieldContainer[float]
    modality: str
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., spacing_mm: _Optional[_Iterable[float]] = ..., orientation: _Optional[_Iterable[float]] = ..., modality: _Optional[str] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("model", "images", "prompts", "output", "multimask", "return_logits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    MULTIMASK_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[ImageSource]
    prompts: _containers.RepeatedCompositeFieldContainer[Prompt]
    output: str
    multimask: bool
    return_logits: bool
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[ImageSource, _Mapping]]] = ..., prompts: _Optional[_Iterable[_Union[Prompt, _Mapping]]] = ..., output: _Optional[str] = ..., multimask: _Optional[bool] = ..., return_logits: _Optional[bool] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("segment", "classify", "embed")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    CLASSIFY_FIELD_NUMBER: _ClassVar[int]
    EMBED_FIELD_NUMBER: _ClassVar[int]
    segment: SegmentResponse
    classify: ClassifyResponse
    embed: EmbedResponse
    def __init__(self, segment: _Optional[_Union[SegmentResponse, _Mapping]] = ..., classify: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., embed: _Optional[_Union[EmbedResponse, _Mapping]] = ...) -> None: ...

class SegmentRequest(_message.Message):
    __slots__ = ("model", "image", "objects", "multimask", "output", "return_logits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    MULTIMASK_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: ImageSource
    objects: _containers.RepeatedCompositeFieldContainer[ObjectPrompt]
    multimask: bool
    output: MaskFormat
    return_logits: bool
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[ImageSource, _Mapping]] = ..., objects: _Optional[_Iterable[_Union[ObjectPrompt, _Mapping]]] = ..., multimask: _Optional[bool] = ..., output: _Optional[_Union[MaskFormat, str]] = ..., return_logits: _Optional[bool] = ...) -> None: ...

class Polygon(_message.Message):
    __slots__ = ("xy",)
    XY_FIELD_NUMBER: _ClassVar[int]
    xy: bytes
    def __init__(self, xy: _Optional[bytes] = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("object", "score", "area_px", "box", "format", "data", "polygons", "logits")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    AREA_PX_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    object: int
    score: float
    area_px: int
    box: _containers.RepeatedScalarFieldContainer[int]
    format: MaskFormat
    data: bytes
    polygons: _containers.RepeatedCompositeFieldContainer[Polygon]
    logits: bytes
    def __init__(self, object: _Optional[int] = ..., score: _Optional[float] = ..., area_px: _Optional[int] = ..., box: _Optional[_Iterable[int]] = ..., format: _Optional[_Union[MaskFormat, str]] = ..., data: _Optional[bytes] = ..., polygons: _Optional[_Iterable[_Union[Polygon, _Mapping]]] = ..., logits: _Optional[bytes] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("masks", "frame", "image_id", "meta")
    MASKS_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    masks: _containers.RepeatedCompositeFieldContainer[Mask]
    frame: Frame
    image_id: str
    meta: Meta
    def __init__(self, masks: _Optional[_Iterable[_Union[Mask, _Mapping]]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., image_id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ...) -> None: ...

class SegmentSessionRequest(_message.Message):
    __slots__ = ("id", "image", "prompt", "deadline_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    image: EncodeImageRequest
    prompt: SessionPrompt
    deadline_ms: int
    def __init__(self, id: _Optional[str] = ..., image: _Optional[_Union[EncodeImageRequest, _Mapping]] = ..., prompt: _Optional[_Union[SessionPrompt, _Mapping]] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class SessionPrompt(_message.Message):
    __slots__ = ("objects", "multimask", "output", "return_logits")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    MULTIMASK_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[ObjectPrompt]
    multimask: bool
    output: MaskFormat
    return_logits: bool
    def __init__(self, objects: _Optional[_Iterable[_Union[ObjectPrompt, _Mapping]]] = ..., multimask: _Optional[bool] = ..., output: _Optional[_Union[MaskFormat, str]] = ..., return_logits: _Optional[bool] = ...) -> None: ...

class SegmentSessionResponse(_message.Message):
    __slots__ = ("id", "image", "masks", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    image: EncodeImageResponse
    masks: SegmentResponse
    error: Error
    def __init__(self, id: _Optional[str] = ..., image: _Optional[_Union[EncodeImageResponse, _Mapping]] = ..., masks: _Optional[_Union[SegmentResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "param", "retryable", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    param: str
    retryable: bool
    retry_after_s: float
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ..., retryable: _Optional[bool] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class EncodeImageRequest(_message.Message):
    __slots__ = ("model", "image")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: Image
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class GetImageRequest(_message.Message):
    __slots__ = ("image_id", "model")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    model: str
    def __init__(self, image_id: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class DeleteImageRequest(_message.Message):
    __slots__ = ("image_id", "model")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    model: str
    def __init__(self, image_id: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class DeleteImageResponse(_message.Message):
    __slots__ = ("image_id", "meta")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    meta: Meta
    def __init__(self, image_id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ...) -> None: ...

class EncodeImageResponse(_message.Message):
    __slots__ = ("image_id", "frame", "expires_in_s", "meta")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    frame: Frame
    expires_in_s: float
    meta: Meta
    def __init__(self, image_id: _Optional[str] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., expires_in_s: _Optional[float] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "images", "labels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[ImageSource]
    labels: Labels
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[ImageSource, _Mapping]]] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("labels", "scores", "scoring", "meta")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SCORING_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    scores: bytes
    scoring: str
    meta: Meta
    def __init__(self, labels: _Optional[_Iterable[str]] = ..., scores: _Optional[bytes] = ..., scoring: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "images", "texts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[ImageSource]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[ImageSource, _Mapping]]] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("vectors", "dimensions", "meta")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    vectors: bytes
    dimensions: int
    meta: Meta
    def __init__(self, vectors: _Optional[bytes] = ..., dimensions: _Optional[int] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model", "prompts", "licence", "source", "limits_json", "built_at", "gates_json")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_JSON_FIELD_NUMBER: _ClassVar[int]
    BUILT_AT_FIELD_NUMBER: _ClassVar[int]
    GATES_JSON_FIELD_NUMBER: _ClassVar[int]
    model: Model
    prompts: _containers.RepeatedScalarFieldContainer[str]
    licence: str
    source: str
    limits_json: str
    built_at: str
    gates_json: str
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., prompts: _Optional[_Iterable[str]] = ..., licence: _Optional[str] = ..., source: _Optional[str] = ..., limits_json: _Optional[str] = ..., built_at: _Optional[str] = ..., gates_json: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("files", "media_type", "window")
    FILES_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[bytes]
    media_type: str
    window: Window
    def __init__(self, files: _Optional[_Iterable[bytes]] = ..., media_type: _Optional[str] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class VolumeMask(_message.Message):
    __slots__ = ("height", "width", "counts")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    counts: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., counts: _Optional[bytes] = ...) -> None: ...

class VolumeObject(_message.Message):
    __slots__ = ("box", "points", "mask", "slice", "first", "last", "label")
    BOX_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    box: Box
    points: _containers.RepeatedCompositeFieldContainer[Point]
    mask: VolumeMask
    slice: int
    first: int
    last: int
    label: int
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., mask: _Optional[_Union[VolumeMask, _Mapping]] = ..., slice: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., label: _Optional[int] = ...) -> None: ...

class SegmentVolumeRequest(_message.Message):
    __slots__ = ("model", "volume", "objects", "axis", "output", "keep", "classes", "supports")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    volume: Volume
    objects: _containers.RepeatedCompositeFieldContainer[VolumeObject]
    axis: int
    output: VolumeFormat
    keep: bool
    classes: _containers.RepeatedScalarFieldContainer[str]
    supports: str
    def __init__(self, model: _Optional[str] = ..., volume: _Optional[_Union[Volume, _Mapping]] = ..., objects: _Optional[_Iterable[_Union[VolumeObject, _Mapping]]] = ..., axis: _Optional[int] = ..., output: _Optional[_Union[VolumeFormat, str]] = ..., keep: _Optional[bool] = ..., classes: _Optional[_Iterable[str]] = ..., supports: _Optional[str] = ...) -> None: ...

class FollowVolumeRequest(_message.Message):
    __slots__ = ("job", "after")
    JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    job: str
    after: int
    def __init__(self, job: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class DeleteVolumeRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class DeleteVolumeResponse(_message.Message):
    __slots__ = ("job", "state")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: str
    def __init__(self, job: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class VolumeFrame(_message.Message):
    __slots__ = ("size", "spacing_mm", "affine", "modality")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SPACING_MM_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    size: _containers.RepeatedScalarFieldContainer[int]
    spacing_mm: _containers.RepeatedScalarFieldContainer[float]
    affine: _containers.RepeatedScalarFieldContainer[float]
    modality: str
    def __init__(self, size: _Optional[_Iterable[int]] = ..., spacing_mm: _Optional[_Iterable[float]] = ..., affine: _Optional[_Iterable[float]] = ..., modality: _Optional[str] = ...) -> None: ...

class VolumeAccepted(_message.Message):
    __slots__ = ("objects", "total", "frame", "model")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    objects: int
    total: int
    frame: VolumeFrame
    model: Model
    def __init__(self, objects: _Optional[int] = ..., total: _Optional[int] = ..., frame: _Optional[_Union[VolumeFrame, _Mapping]] = ..., model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class VolumeLocating(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class VolumeProgress(_message.Message):
    __slots__ = ("done", "total", "slice", "objects")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    slice: int
    objects: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ..., slice: _Optional[int] = ..., objects: _Optional[_Iterable[int]] = ...) -> None: ...

class VolumeFound(_message.Message):
    __slots__ = ("object", "voxels", "first", "last")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    VOXELS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    object: int
    voxels: int
    first: int
    last: int
    def __init__(self, object: _Optional[int] = ..., voxels: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class VolumeDone(_message.Message):
    __slots__ = ("objects", "format", "bytes", "frame", "meta")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[VolumeFound]
    format: VolumeFormat
    bytes: int
    frame: VolumeFrame
    meta: Meta
    def __init__(self, objects: _Optional[_Iterable[_Union[VolumeFound, _Mapping]]] = ..., format: _Optional[_Union[VolumeFormat, str]] = ..., bytes: _Optional[int] = ..., frame: _Optional[_Union[VolumeFrame, _Mapping]] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ...) -> None: ...

class VolumeEvent(_message.Message):
    __slots__ = ("job", "seq", "accepted", "progress", "done", "piece", "locating")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    LOCATING_FIELD_NUMBER: _ClassVar[int]
    job: str
    seq: int
    accepted: VolumeAccepted
    progress: VolumeProgress
    done: VolumeDone
    piece: bytes
    locating: VolumeLocating
    def __init__(self, job: _Optional[str] = ..., seq: _Optional[int] = ..., accepted: _Optional[_Union[VolumeAccepted, _Mapping]] = ..., progress: _Optional[_Union[VolumeProgress, _Mapping]] = ..., done: _Optional[_Union[VolumeDone, _Mapping]] = ..., piece: _Optional[bytes] = ..., locating: _Optional[_Union[VolumeLocating, _Mapping]] = ...) -> None: ...
