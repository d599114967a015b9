"""Which version of a model answers: by weight for a new image, and for a handle the version that made it.

A version is a model named ``MODEL@VERSION`` (`models build --version`). The weights are percent of the images: an image is
given to a version by its content: the same image always meets the same one, and of two versions the one that gets more weight
only gains images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from serving.domain.image import ImageHandle
from serving.domain.request import Embed, Task, images_of
from serving.embeddings.keys import model_tag
from serving.errors import SetupError
from serving.router.brain import ServedModel

MARK = "@"
Weights = Mapping[str, Mapping[str, float]]
"""model -> version -> percent of the images; what is left goes to the model without a version."""
STEPS = 10_000


def base_of(name: str) -> str:
    """The model's name without its version."""
    return name.split(MARK, 1)[0]


def check(weights: Weights, served: Iterable[str]) -> None:
    """Raises SetupError where a weight is for what is not served, is no percentage, or several exceed 100."""
    names = set(served)
    for model, its in weights.items():
        for version, percent in its.items():
            if f"{model}{MARK}{version}" not in names:
                raise SetupError(f"versions.{model}: {model}{MARK}{version} is not built or not served")
            if not 0 <= percent <= 100:
                raise SetupError(f"versions.{model}.{version}: {percent:g} is no percentage (0 to 100)")
        if sum(its.values()) > 100:
            raise SetupError(f"versions.{model}: the weights are more than 100 percent together")


def pick(
    chosen: ServedModel, asked: str | None, task: Task, image: str, served: Sequence[ServedModel], weights: Weights
) -> ServedModel:
    """The version of `chosen` that answers. `asked`: the name in the request; `image`: its affinity key, "" without one.

    A version that is asked for by name answers. Vectors of two versions do not compare, so `Embed` is never split.
    """
    if asked is not None and MARK in asked:
        return chosen
    base = base_of(chosen.manifest.model)
    group = {each.manifest.model: each for each in served if base_of(each.manifest.model) == base}
    if len(group) == 1:
        return chosen
    first = next(iter(images_of(task)), None)
    if isinstance(first, ImageHandle):
        made = next((each for each in group.values() if model_tag(each.manifest.digest) == first.model_tag), None)
        if made is not None:
            return made
    if isinstance(task, Embed):
        return chosen
    return group.get(_version(base, image, weights.get(base, {})), chosen)


def _version(base: str, image: str, its: Mapping[str, float]) -> str:
    """The name that an image falls to: the versions lie side by side from 0 %, in the order of their names."""
    place = int.from_bytes(hashlib.sha256(f"{base}|{image}".encode()).digest()[:8], "big") % STEPS
    edge = 0.0
    for version, percent in sorted(its.items()):
        edge += percent * STEPS / 100
        if place < edge:
            return f"{base}{MARK}{version}"
    return base


def shares(served: Sequence[ServedModel], weights: Weights) -> dict[str, float]:
    """Model -> the share of new images that it gets where its base name is asked for, 0..1."""
    found = {}
    for name in (each.manifest.model for each in served):
        base, _, version = name.partition(MARK)
        its = weights.get(base, {})
        found[name] = (its.get(version, 0.0) if version else 100 - sum(its.values())) / 100
    return found
