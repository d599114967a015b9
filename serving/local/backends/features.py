"""Where the Python-based backends find Features: tensors in a slot of the node's arena, read and written in place.

Triton starts the backends with the arena's name in MEDSERVE_ARENA. This file and `slots.py` are copied beside each `model.py`.
"""

import os

import numpy as np
from slots import READY, RESERVED, Slots, Stale, offsets

SLOT = "slot"
STALE = "features are gone"
"""Begins the error of a request whose slot holds another image's Features by now."""


class Features:
    """The Features that one engine reads or writes. `shapes`: name -> shape of each float32 tensor, in the slot's order."""

    def __init__(self, shapes, state):
        self._slots = Slots(os.environ["MEDSERVE_ARENA"])
        self._state = state
        self._shapes = shapes
        starts = offsets([4 * int(np.prod(shape)) for shape in shapes.values()])
        self._places = dict(zip(shapes, starts, strict=False))

    def holding(self, name):
        """A block with the tensors, name -> float32 view of the slot. `name`: (1, 2) int64, index and generation."""
        index, generation = (int(value) for value in np.ravel(name))
        return _Held(self, self._slots.holding(index, generation, self._state))

    def views(self, place):
        """The tensors of a slot's bytes."""
        found = {}
        for name, shape in self._shapes.items():
            start = self._places[name]
            found[name] = place[start : start + 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
        return found


class _Held:
    def __init__(self, features, place):
        self._features, self._place = features, place

    def __enter__(self):
        return self._features.views(self._place.__enter__())

    def __exit__(self, *exc):
        return self._place.__exit__(*exc)


def reading(shapes):
    """Features that an engine reads, or None where it reads none."""
    return Features(shapes, READY) if shapes else None


def writing(shapes):
    """Features that an engine writes, or None where it writes none."""
    return Features(shapes, RESERVED) if shapes else None


__all__ = ["SLOT", "STALE", "Stale", "reading", "writing"]
