"""Pixels -> the image encoder's input, a user's mask -> the model frame: bowang-lab/MedSAM2, `medsam2_infer_3D_CT.py`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from serving.domain.image import Image
from serving.families.medsam2.resample import antialiased
from serving.families.procedure import ModelInput, Scale

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""ImageNet's, RGB, of values in 0..1."""


def preprocessing_id(side_px: int) -> str:
    """Names this preprocessing in the Features' key: change it when a result of this file changes."""
    return f"squash-{side_px}-pillow-bicubic-imagenet/1"


def prepare(image: Image, side_px: int) -> ModelInput:
    """The picture as RGB squashed to a square by Pillow's bicubic filter, then normalised."""
    picture = Pillow.fromarray(image.pixels).convert("RGB").resize((side_px, side_px), Pillow.Resampling.BICUBIC)
    values = np.asarray(picture, np.float32) / np.float32(255)
    tensor = np.ascontiguousarray(((values - MEAN) / STD).transpose(2, 0, 1)[None])
    return ModelInput(tensor, (side_px, side_px))


def scale(size_px: tuple[int, int], side_px: int) -> Scale:
    """Each axis by its own ratio; coordinates keep their fraction (`sam2_video_predictor.py`). `size_px`: (width, height)."""
    return Scale(side_px / size_px[0], side_px / size_px[1])


def prepare_mask(mask: npt.NDArray[np.bool_], side_px: int) -> npt.NDArray[np.float32]:
    """Mask (rows, columns) of the original frame -> (side, side) float32, 0 or 1 (sam2's `add_new_mask`)."""
    rows, columns = mask.shape
    resized = antialiased(side_px, rows) @ mask.astype(np.float32) @ antialiased(side_px, columns).T
    return (resized >= 0.5).astype(np.float32)
