"""What is remembered of one object while it is followed through slices, as sam2's `_prepare_memory_conditioned_features`.

In one direction: the key slice always, and of the slices since, six masks and fifteen object pointers, the latest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RECENT_MASKS = 6
"""`num_maskmem` - 1."""
MOST_POINTERS = 16
"""`max_obj_ptrs_in_encoder`, the key slice's among them."""


class Sighting(NamedTuple):
    """What a slice leaves: `memory` (N, 64) float32 that bfloat16 holds exactly, `pointer` (256,) float32."""

    memory: Floats
    pointer: Floats


class Remembered(NamedTuple):
    """What the next slice is asked with, one object's row.

    `memories` (M, N, 64) at `places` (M,): 0 the key slice, t the slice t steps ago. `pointers` (K, 256) with `ages` (K,):
    steps since, over the most that there can be.
    """

    memories: Floats
    places: npt.NDArray[np.int64]
    pointers: Floats
    ages: Floats


@dataclass(eq=False)
class Track:
    """One object in one direction. `key`: its key slice; `slices`: how many it may lie on, that one included."""

    key: int
    slices: int
    first: Sighting
    seen: dict[int, Sighting] = field(default_factory=dict)

    def remembered(self, index: int) -> Remembered:
        """What is remembered at a slice: the key slice first, then masks from the oldest and pointers from the latest."""
        step = 1 if index > self.key else -1
        masks = [t for t in range(RECENT_MASKS, 0, -1) if index - t * step in self.seen]
        most = min(self.slices, MOST_POINTERS)
        recent = [t for t in range(1, most) if index - t * step in self.seen]
        ages = np.array([abs(index - self.key), *recent], np.float32) / np.float32(most - 1)
        return Remembered(
            np.stack([self.first.memory, *(self.seen[index - t * step].memory for t in masks)]),
            np.array([0, *masks], np.int64),
            np.stack([self.first.pointer, *(self.seen[index - t * step].pointer for t in recent)]),
            ages,
        )

    def add(self, index: int, sighting: Sighting) -> None:
        """A slice is done. What no later slice asks for is forgotten."""
        step = 1 if index > self.key else -1
        self.seen[index] = sighting
        self.seen.pop(index - MOST_POINTERS * step, None)


def to_bfloat16(values: Floats) -> Floats:
    """Rounded to the nearest bfloat16, ties to even, as float32: upstream keeps memories so. Finite values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)
