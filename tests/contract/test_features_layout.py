"""Engines that read Features find them where the writer put them.

An engine counts offsets within a slot from its own list (`slots.offsets`): so whoever reads only some of what the writer
writes must read the first of them, in the writer's order and shapes.
"""

import math

import numpy as np
import pytest

from serving import slots
from serving.families.registry import FAMILIES
from serving.manifest import Manifest

OPTIONS = {"image_size": 224, "embed_dim": 512}
"""What the contrastive families ask of a record; the visual ones have sizes of their own."""


def specs(name):
    options = {} if FAMILIES[name].pool == "adaptive" else OPTIONS
    draft = Manifest(model=name, family=name, pool="", digest="", source="", licence="", engines={}, options=options)
    return FAMILIES[name].specs(draft)


def places(tensors):
    """name -> (offset in the slot, shape, dtype)."""
    starts = slots.offsets([math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in tensors])
    return {each.name: (start, each.shape, each.dtype) for each, start in zip(tensors, starts, strict=False)}


def test_some_family_keeps_features():
    assert any(spec.reads for name in FAMILIES for spec in specs(name).values())


@pytest.mark.parametrize("name", [name for name in FAMILIES if any(spec.reads for spec in specs(name).values())])
def test_readers_and_the_writer_agree(name):
    found = specs(name)
    writers = [spec for spec in found.values() if spec.writes]
    readers = [spec for spec in found.values() if spec.reads]
    assert len(writers) == 1
    written = places(writers[0].writes)
    for spec in readers:
        read = places(spec.reads)
        assert read == {tensor: written[tensor] for tensor in read}, spec.name
