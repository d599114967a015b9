"""PNG, JPEG and TIFF -> Image, by Pillow's own readers of these three formats and no other.

The readers are called directly, not through ``Image.open``: nothing but these formats can be reached, and the size limit is
the request's own instead of Pillow's global ``MAX_IMAGE_PIXELS``.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageOps
from PIL.Image import Image as Picture
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from serving.domain.image import Frame, Image, View
from serving.errors import Fault
from serving.imaging import window
from serving.imaging.bounds import check_picture, malformed
from serving.imaging.kinds import Format
from serving.imaging.view import choose, only_picture
from serving.settings import LimitSettings

MAX_PAGES = 4096
"""Pages of a TIFF that are counted; a longer file is refused."""

_READERS: dict[Format, Callable[[BytesIO], Any]] = {
    Format.PNG: PngImageFile,
    Format.JPEG: JpegImageFile,
    Format.TIFF: TiffImageFile,
}
_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0


def read(data: bytes, kind: Format, view: View, limits: LimitSettings) -> Image:
    """A PNG, JPEG or TIFF file -> Image.

    Gray stays gray (1 bit as 0 and 255, 16 bits and floats windowed), palettes, CMYK and YCbCr become RGB, alpha is dropped
    and the stored colours stay; colours of 16 bits keep their upper 8. The EXIF or TIFF orientation is applied, so that
    coordinates are those of the picture as viewers show it. Raises Fault: MALFORMED, TOO_LARGE, INVALID (index).
    """
    try:
        with _READERS[kind](BytesIO(data)) as picture:
            check_picture(picture.width, picture.height, limits)
            if kind is Format.TIFF:
                _turn_to_page(picture, view, limits)
            else:
                only_picture(view)
            inverted = kind is Format.TIFF and picture.mode.startswith("I;16") and _white_is_zero(picture)
            samples = _samples(ImageOps.exif_transpose(picture))
    except Fault:
        raise
    except Exception as exc:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ... on damaged files
        raise malformed(f"the {kind.value} file is damaged or cut short: send it whole") from exc
    pixels = _windowed(samples, view)
    rows, columns = pixels.shape[:2]
    return Image(np.subtract(255, pixels, dtype=np.uint8) if inverted else pixels, Frame((columns, rows)))


def _turn_to_page(picture: TiffImageFile, view: View, limits: LimitSettings) -> None:
    choose(view, _pages(picture), "page")
    picture.seek(view.index or 0)
    check_picture(picture.width, picture.height, limits)


def _pages(picture: TiffImageFile) -> int:
    """Number of pages, counted no further than MAX_PAGES."""
    for page in range(1, MAX_PAGES + 1):
        try:
            picture.seek(page)
        except EOFError:
            return page
    raise malformed(f"the TIFF file has more than {MAX_PAGES} pages: send fewer")


def _white_is_zero(picture: TiffImageFile) -> bool:
    return bool(picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _samples(picture: Picture) -> npt.NDArray[Any]:
    """(rows, columns) uint8, uint16, int32 or float32; or (rows, columns, 3) uint8."""
    if picture.mode == "1" or picture.mode in ("LA", "La"):
        picture = picture.convert("L")
    if picture.mode == "L" or picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        samples = np.asarray(picture)
        return samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _windowed(samples: npt.NDArray[Any], view: View) -> npt.NDArray[np.uint8]:
    if view.window is None and samples.dtype == np.uint8:
        return samples
    return window.apply(samples, view.window or window.DEFAULT)
