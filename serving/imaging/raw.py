"""Bodies of raw samples with a declared dtype and shape."""

from __future__ import annotations

import math

import numpy as np

from serving.domain.image import Frame, Image, RawLayout, View
from serving.imaging import window
from serving.imaging.bounds import check_picture, malformed
from serving.imaging.view import only_picture
from serving.settings import LimitSettings


def read(data: bytes, layout: RawLayout, view: View, limits: LimitSettings) -> Image:
    """Little-endian samples in C order -> Image.

    uint8 without a window is taken as it is; deeper samples get `window.DEFAULT`. Raises Fault(MALFORMED) where the body
    is not as long as its layout says, Fault(TOO_LARGE), Fault(INVALID) where an index other than 0 is asked for.
    """
    rows, columns = layout.shape[:2]
    check_picture(columns, rows, limits)
    only_picture(view)
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    expected = math.prod(layout.shape) * dtype.itemsize
    if len(data) != expected:
        shape = " x ".join(str(n) for n in layout.shape)
        raise malformed(f"the raw body has {len(data)} bytes; {shape} samples of {layout.dtype} are {expected}")
    samples = np.frombuffer(data, dtype).reshape(layout.shape)
    frame = Frame((columns, rows))
    if view.window is None and layout.dtype == "uint8":
        return Image(samples.astype(np.uint8), frame)
    return Image(window.apply(samples, view.window or window.DEFAULT), frame)
