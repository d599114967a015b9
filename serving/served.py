"""What is served: the built models of the repository, their engines and pools, as the settings choose."""

from __future__ import annotations

import math

import numpy as np

from serving import slots
from serving.domain.volume import SegmentVolume
from serving.errors import SetupError
from serving.families import registry
from serving.manifest import Manifest, read_all
from serving.router import dispatch
from serving.router.brain import ServedModel
from serving.settings import PoolSettings, Settings


def manifests(settings: Settings) -> tuple[Manifest, ...]:
    """The built models that are served: those with trained weights first. Raises SetupError."""
    found = read_all(settings.repository.path, settings.repository.models)
    for manifest in found:
        if manifest.family not in registry.FAMILIES:
            raise SetupError(f"model {manifest.model} is of family {manifest.family}, which this version does not know")
    return tuple(sorted(found, key=lambda m: (m.demonstration, m.model)))


def served_models(settings: Settings) -> tuple[ServedModel, ...]:
    """The lines of `/v1/models`."""
    lines = []
    for manifest in manifests(settings):
        declared = registry.FAMILIES[manifest.family]
        prompts: tuple[str, ...] = dispatch.VISUAL if manifest.pool == "adaptive" else (*dispatch.TEXT, "image")
        if SegmentVolume in declared.tasks:
            # A model that takes nothing but volumes is told by names what to find in them.
            prompts = (*prompts, dispatch.VOLUME) if len(declared.tasks) > 1 else (dispatch.CLASSES,)
        lines.append(ServedModel(manifest, prompts, declared.limits(manifest)))
    return tuple(lines)


def engine_names(settings: Settings) -> tuple[str, ...]:
    """Every engine that Triton must load, once each."""
    return tuple(sorted({e.name for m in manifests(settings) for parts in m.engines.values() for e in parts}))


def pool_names(settings: Settings) -> tuple[str, ...]:
    """The pools that have models."""
    return tuple(sorted({m.pool for m in manifests(settings)}))


def pool_settings(settings: Settings, name: str) -> PoolSettings:
    """The branch of one pool."""
    found: PoolSettings = getattr(settings.pools, name)
    return found


def slot_bytes(settings: Settings) -> int:
    """Room for one image's Features of any model that keeps some, in whole pages."""
    most = slots.PAGE
    for manifest in manifests(settings):
        for spec in registry.FAMILIES[manifest.family].specs(manifest).values():
            sizes = [math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in spec.writes]
            most = max(most, slots.offsets(sizes)[-1])
    return -(-most // slots.PAGE) * slots.PAGE
