"""CheXzero: CLIP's two towers, prompts in pairs, letterboxed images."""

from __future__ import annotations

from typing import Any

from serving.build.catalogue import Entry
from serving.build.recipes import clip
from serving.build.recipes.clip import gate as gate
from serving.build.recipes.clip import parts as parts
from serving.families.chexzero.engines import specs as specs


def own(entry: Entry) -> dict[str, Any]:
    """CLIP's, the negative of each template, and the side that images are letterboxed to, pixels."""
    return clip.own(entry) | {"negatives": ["no {}"], "letterbox": 320}
