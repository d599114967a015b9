"""The picture under the masks that the command line draws: read as the server reads it, where its readers are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.client import calls
from serving.errors import Fault

INSTALL = "pip install -e '.[serve]' in medserve's checkout"


def shown(image: Path, index: int | None) -> Path | npt.NDArray[np.uint8]:
    """The pixels that the server's models see, (rows, columns) or (rows, columns, 3): a DICOM file through its window.

    The path itself, for Pillow, where the readers are not installed: the client's own packages read no DICOM. The server
    does not send the picture back, for it may answer from Features without decoding the file.
    """
    try:
        from serving.domain.image import EncodedImage, View
        from serving.imaging.decode import decode
        from serving.settings import LimitSettings
    except ImportError:
        return image
    (sent,) = calls.encode_image(image).uploads
    try:
        return decode(EncodedImage(sent.data, sent.said.get("media_type", ""), view=View(index=index)), LimitSettings()).pixels
    except Fault:  # a server with other limits read it
        return image
