"""How large a square a picture may be padded to."""

from __future__ import annotations

from serving.errors import Fault, Kind

FREE_PX = 1 << 26
"""A square of so many pixels is always made: 8,192 on a side."""
GROWTH = 4
"""Beyond, a square may have so many times the picture's own pixels."""


def check_square(rows: int, columns: int) -> None:
    """Refuse a sliver whose square would take memory out of all proportion. Raises Fault(INVALID)."""
    if max(rows, columns) ** 2 > max(FREE_PX, GROWTH * rows * columns):
        raise Fault(
            Kind.INVALID, "the image is too elongated to be padded to a square: send a less elongated one", param="image"
        )
