"""The demo's pictures: masks and boxes over the MR, label scores beside the radiograph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serving.client.overlay import COLOURS, overlay
from serving.client.results import Mask
from serving.demonstration.draw import Pixels
from serving.domain.image import EncodedImage
from serving.imaging.decode import decode
from serving.settings import LimitSettings

SCALE = 2
BAR_PX, ROW_PX = 200, 34
INK, FAINT = (235, 235, 235), (90, 90, 90)
Box = tuple[int, int, int, int]


def segmentation(path: Path, dicom: bytes, objects: Sequence[tuple[str, Box, Mask]]) -> None:
    """The image windowed as the server windows it, twice its size: boxes as sent, masks as answered, with their scores."""
    pixels = decode(EncodedImage(dicom, "application/dicom"), LimitSettings()).pixels
    large = cv2.resize(pixels, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    masks = [cv2.resize(m.array.astype(np.uint8), None, fx=SCALE, fy=SCALE, interpolation=0) > 0 for _, _, m in objects]
    picture = Image.fromarray(overlay(np.repeat(large[..., None], 3, axis=2), masks))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for number, (name, box, mask) in enumerate(objects):
        colour = COLOURS[number % len(COLOURS)]
        x0, y0, x1, y1 = (SCALE * edge for edge in box)
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=2)
        pen.text((x0, y0 - 20), f"{name}  {mask.score:.2f}", fill=colour, font=font)
    picture.save(path)


def classification(path: Path, radiograph: Pixels, scores: Sequence[tuple[str, float]], drawn: Collection[str]) -> None:
    """The drawn radiograph, and a bar for each label's score; what was drawn into it is marked."""
    side = SCALE * radiograph.shape[0]
    picture = Image.new("RGB", (side + 420, side), (18, 18, 18))
    picture.paste(Image.fromarray(radiograph).resize((side, side), Image.Resampling.BICUBIC), (0, 0))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    pen.text((side + 20, 20), "a drawing, not a patient; * was drawn", fill=FAINT, font=font)
    for number, (label, score) in enumerate(scores):
        x, y = side + 20, 60 + ROW_PX * number
        pen.text((x, y), f"{label}{' *' if label in drawn else ''}", fill=INK, font=font)
        pen.rectangle((x + 160, y + 4, x + 160 + BAR_PX, y + 16), outline=FAINT)
        pen.rectangle((x + 160, y + 4, x + 160 + round(BAR_PX * score), y + 16), fill=COLOURS[1])
        pen.text((x + 168 + BAR_PX, y), f"{score:.2f}", fill=INK, font=font)
    picture.save(path)
