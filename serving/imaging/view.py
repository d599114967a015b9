"""Which picture of a file a View asks for."""

from __future__ import annotations

from serving.domain.image import View
from serving.imaging.bounds import invalid


def only_picture(view: View) -> None:
    """Refuse an index other than 0 into a file that holds one picture. Raises Fault(INVALID)."""
    choose(view, 1, "picture")


def choose(view: View, count: int, noun: str) -> int:
    """The index that a view asks for among `count` pictures (`noun`: frame, page or slice).

    None is right where there is one picture alone. Raises Fault(INVALID) that says how many there are.
    """
    if view.index is None:
        if count == 1:
            return 0
        raise invalid(f"the file holds {count} {noun}s: say which with index, 0 to {count - 1}", "image.index")
    if view.index >= count:
        plural = "" if count == 1 else "s"
        raise invalid(
            f"index {view.index} is beyond the file's {count} {noun}{plural}: indices go from 0 to {count - 1}", "image.index"
        )
    return view.index
