"""What Features are the same Features: the key, and the handle that a client holds in its place."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

HANDLE_PART = 32
"""Hex digits of each half of a handle: 128 bits of the content key, 128 bits of the Features' key."""
TAG = 8
"""Hex digits with which every Features' key of one model begins, so that a handle tells which version of a model made it."""


@lru_cache(256)
def model_tag(model_digest: str) -> str:
    """What the keys of a model's Features begin with. It says which model, and nothing of the image."""
    return hashlib.sha256(model_digest.encode()).hexdigest()[:TAG]


def features_key(tenant: str, model_digest: str, preprocessing_id: str, content_key: str) -> str:
    """The model's tag, then hex sha256 of everything that decides the Features: for whom, by which weights, from which pixels.

    `preprocessing_id`: names the family's preprocessing and its version. `content_key`: the image's bytes, layout and
    view with its window (`EncodedImage.content_key`).
    """
    parts = json.dumps([tenant, model_digest, preprocessing_id, content_key])
    return model_tag(model_digest) + hashlib.sha256(parts.encode()).hexdigest()[TAG:]


def handle_of(content_key: str, key: str) -> str:
    """The handle that a client gets: the router reads its first half (affinity), the store its whole."""
    return f"{content_key[:HANDLE_PART]}.{key[:HANDLE_PART]}"
