"""Which model answers? A pure function of the prompt kind, the model asked for, and what is served."""

from __future__ import annotations

from collections.abc import Sequence

from serving.domain.request import Classify, Embed, Encode, Lookup, Segment, Task
from serving.domain.volume import ClassNames, SegmentVolume
from serving.errors import Fault, Kind
from serving.router.brain import ServedModel
from serving.router.versions import base_of

VISUAL = ("box", "point", "mask")
VOLUME = "volume"
"""Said of the models that take whole volumes."""
CLASSES = "classes"
"""Said of the models that find structures in whole volumes by name."""
TEXT = ("labels", "text")

_PROMPTS: dict[type, tuple[str, ...]] = {
    Segment: VISUAL,
    Encode: VISUAL,
    Lookup: VISUAL,
    Classify: ("labels",),
    Embed: ("text", "image"),
    SegmentVolume: (VOLUME,),
}
"""Task -> the prompt kinds, one of which a model must take to answer it."""

_POOLS: dict[type, tuple[str, ...]] = {
    Segment: ("adaptive",),
    Encode: ("adaptive",),
    Lookup: ("adaptive",),
    Classify: ("contrastive",),
    Embed: ("contrastive",),
    SegmentVolume: ("adaptive",),
}
"""Task -> the pools that answer it, the preferred one first."""


def choose(task: Task, model: str | None, served: Sequence[ServedModel]) -> ServedModel:
    """The model that answers: the one named, or the first served that takes this kind of prompt.

    Raises Fault: UNKNOWN_MODEL where the name is not served, INVALID where that model does not take such prompts (the
    message says what it takes and which models would do).
    """
    able = [m for m in served if m.manifest.pool in _POOLS[type(task)] and _takes(m, task)]
    if model is None:
        if not able:
            raise Fault(Kind.UNKNOWN_MODEL, f"no served model takes {_words(task)} prompts", param="model")
        return able[0]
    found = next((m for name in (str, base_of) for m in served if name(m.manifest.model) == model), None)
    if found is None:
        names = ", ".join(m.manifest.model for m in served)
        raise Fault(Kind.UNKNOWN_MODEL, f"this model is not served; served are: {names}", param="model")
    if found not in able:
        names = ", ".join(m.manifest.model for m in able) or "none that is served"
        raise Fault(
            Kind.INVALID,
            f"model {model} takes {' or '.join(found.prompts)} prompts, not {_words(task)}; for those ask {names}",
            param="model",
        )
    return found


def _takes(model: ServedModel, task: Task) -> bool:
    if isinstance(task, SegmentVolume):
        return not set(_kinds(task)).isdisjoint(model.prompts)
    return CLASSES not in model.prompts


def _kinds(task: Task) -> tuple[str, ...]:
    """The prompt kinds, one of which a model must take to answer this."""
    by_name = isinstance(task, SegmentVolume) and isinstance(task.objects, ClassNames)
    return (CLASSES,) if by_name else _PROMPTS[type(task)]


def _words(task: Task) -> str:
    return " or ".join(_kinds(task))
