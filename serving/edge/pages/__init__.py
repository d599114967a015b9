"""The pages that the HTTP front shows: self-contained, nothing is fetched from elsewhere."""

from __future__ import annotations

from importlib.resources import files


def page(name: str) -> str:
    """The text of one page of this folder."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
