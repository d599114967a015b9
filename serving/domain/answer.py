"""Answers: masks, scores, vectors or handles, in the original frame, with stage timings and who made them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.domain.image import Frame
from serving.domain.request import MaskFormat


@dataclass(frozen=True)
class ModelInfo:
    """Who answered. `digest`: sha256 of the checkpoint; `engines`: engine name -> sha256 of the compiled artefact.

    `pool` is the class of the taxonomy (adaptive, contrastive, ...); `demonstration` marks weights that show the plumbing
    and certify nothing.
    """

    name: str
    family: str
    pool: str
    digest: str
    engines: dict[str, str] = field(default_factory=dict)
    precision: str = "f32"
    demonstration: bool = False


@dataclass(frozen=True)
class EncodedMask:
    """One mask as it leaves. `data`: COCO RLE counts (ASCII), PNG file, or deflated packed bits; `polygons` for POLYGON.

    Packed bits: rows x ceil(columns / 8) bytes, most significant bit first, compressed by zlib. A polygon is a flat
    (x, y, x, y, ...) float32 array in pixels of the original frame. `area_px`: foreground pixels. `box`: x0, y0, x1, y1
    of the foreground (x1, y1 exclusive), or None where the mask is empty.
    """

    format: MaskFormat
    size_px: tuple[int, int]
    data: bytes
    area_px: int
    box: tuple[int, int, int, int] | None
    polygons: tuple[npt.NDArray[np.float32], ...] = ()


@dataclass(frozen=True)
class Mask:
    """A mask of one object with the model's own estimate of its IoU, and, where asked for, its low-resolution logits.

    `object`: index into the request's objects. `logits`: (256, 256) float16, model frame, or None.
    """

    object: int
    mask: EncodedMask
    score: float
    logits: npt.NDArray[np.float16] | None = None


@dataclass(frozen=True)
class Masks:
    """Segment's answer: the masks in the order of the objects (three an object with multimask), and the image's frame."""

    masks: tuple[Mask, ...]
    frame: Frame
    image_id: str


@dataclass(frozen=True)
class Scores:
    """Classify's answer: `values` (images, labels) float32, each as published by the model; `scoring` names how."""

    labels: tuple[str, ...]
    values: npt.NDArray[np.float32]
    scoring: str


@dataclass(frozen=True)
class Embeddings:
    """Embed's answer: `vectors` (items, dimensions) float32, L2-normalised."""

    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Encode's and Lookup's answer: the handle, the frame, and how long the handle lives at least, in seconds."""

    image_id: str
    frame: Frame
    expires_in_s: float


Result = Masks | Scores | Embeddings | Encoded


@dataclass(frozen=True)
class Answer:
    """A result with who made it, how long each stage took (seconds) and where Features came from.

    `features`: "hit", "miss", "coalesced", or "" where no Features are involved.
    """

    result: Result
    model: ModelInfo
    stages: dict[str, float]
    features: str = ""
