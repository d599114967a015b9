"""Which replica? Equal keys go to one replica, so that a prompt lands where its image's Features are."""

from __future__ import annotations

from serving.domain.image import EncodedImage
from serving.domain.request import Task, images_of

KEY_CHARS = 32


def key(task: Task) -> str:
    """The affinity key: the first image's content key, or the handle's own; empty where a task has no image."""
    images = images_of(task)
    if not images:
        return ""
    first = images[0]
    return first.content_key()[:KEY_CHARS] if isinstance(first, EncodedImage) else first.affinity[:KEY_CHARS]
