"""The gate's real images, shipped in pydicom's and nibabel's wheels and read as a client's are, with their prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from serving.build import samples
from serving.build.gate_boxes import BOXES
from serving.domain.image import EncodedImage, Frame, Image, View
from serving.families.clip import preprocess as clip_preprocess
from serving.families.litemedsam.preprocess import ModelInput, prepare
from serving.families.tokenizer import open_tokenizer
from serving.imaging.decode import decode
from serving.settings import LimitSettings

FINDINGS = (
    "atelectasis", "cardiomegaly", "consolidation", "edema", "enlarged cardiomediastinum", "fracture", "lung lesion",
    "lung opacity", "no finding", "pleural effusion", "pleural other", "pneumonia", "pneumothorax", "support devices",
)  # fmt: skip
"""CheXpert's labels (Irvin et al. 2019), among which a tower's embeddings are ranked."""

DRAWINGS, FIRST_DRAWING = 40, 90_000_000
"""Drawn radiographs for towers that were trained on drawings, and the first's seed: none that training or evaluation saw."""

SLICES = {"examples_ybr_color.dcm": 15, "example4d.nii.gz": 11}
"""Which frame or slice of a file that holds several."""

TOP, BOTTOM = 2, 3
"""SAM's labels of a box's two corners (segment_anything `modeling/prompt_encoder.py`)."""


@dataclass(frozen=True, eq=False)
class Item:
    """One image with its prompts. `points` (1, P, 2, 2) float32 (x, y) of the model's frame, `labels` (1, P, 2) int64.

    `size_px` (width, height): of the original frame, in which masks are compared.
    """

    name: str
    given: ModelInput
    size_px: tuple[int, int]
    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def picture(name: str, index: int | None = None) -> Image:
    """One of the files by name, after its default window. `index`: of the frame or slice, where not the usual one."""
    data = _volume(name) if name.endswith(".nii.gz") else samples.path(name).read_bytes()
    return decode(EncodedImage(data, view=View(index=SLICES.get(name) if index is None else index)), LimitSettings())


def tower_images(side_px: int, *, drawn: bool) -> list[npt.NDArray[np.float32]]:
    """(1, 3, side_px, side_px) float32 each, normalised as CLIP's: the gate's images and more frames and slices of them.

    `drawn`: radiographs as the demonstration draws them instead.
    """
    if drawn:
        from serving.demonstration.draw import draw

        seeds = range(FIRST_DRAWING, FIRST_DRAWING + DRAWINGS)
        made = [
            Image(drawing.pixels, Frame((drawing.pixels.shape[1], drawing.pixels.shape[0]))) for drawing in map(draw, seeds)
        ]
    else:
        made = [picture(name) for name in BOXES if name not in SLICES]
        made += [picture("examples_ybr_color.dcm", index) for index in range(0, 30, 3)]
        made += [picture("example4d.nii.gz", index) for index in range(2, 24)]
    return [clip_preprocess.prepare(image, side_px)[None] for image in made]


def label_tokens(options: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """(L, context) ids of the labels that a tower's embeddings are ranked against. `options`: as in the model's record."""
    names = options.get("labels") or FINDINGS
    return open_tokenizer(options).batch(list(names), int(options["context_length"]))


def _volume(name: str) -> bytes:
    """The first of nibabel's series of volumes, as a file of its own."""
    series: Any = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / name)
    first: bytes = series.slicer[..., 0].to_bytes()
    return first


def items() -> list[Item]:
    """CT, MR and ultrasound, 15 boxes each.

    The boxes lie 5 pixels around structures: around distinct masks (no two above an IoU of 0.7) that the published weights
    in f32 gave to a regular grid of boxes of a quarter and of half the image's sides, every n-th of them.
    """
    found = []
    for name, boxes in BOXES.items():
        image = picture(name)
        given = prepare(image)
        scale = given.content_px[0] / image.frame.size_px[0]
        points = (np.array(boxes, np.float32) * scale).reshape(1, -1, 2, 2)
        labels = np.tile(np.array([TOP, BOTTOM], np.int64), (1, len(boxes), 1))
        found.append(Item(name, given, image.frame.size_px, points, labels))
    return found
