"""Pixels as files."""

import io

from PIL import Image


def png(pixels):
    """(rows, columns) or (rows, columns, 3) uint8 as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
