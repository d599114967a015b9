"""Encodes into a store: ones that do nothing, and ones that wait until a test lets them go."""

import numpy as np
from gated import Gated, turns

from serving import shm
from serving.domain.image import Frame
from serving.embeddings.store import Subject
from serving.errors import Fault

FRAME = Frame((640, 480), (0.7, 0.7), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "CT")


def subject(key, tenant="t", digest="m"):
    return Subject(key, f"h.{key}", tenant, digest, FRAME, (256, 192))


def contents(store, features):
    return np.memmap(shm.ROOT / features.slot.region, np.uint8, "r+")[features.slot.offset :][: store.arena.slot_bytes]


async def nothing(slot):
    pass


async def put(store, key, **who):
    """Features made by an encode that does nothing. The loop lets its task go a turn later, and the slot with it."""
    found = await store.get_or_encode(subject(key, **who), nothing)
    await turns()
    return found


async def kind_of(awaitable):
    """The kind of the Fault that is raised. The error itself is let go: its frames hold what they worked on."""
    try:
        await awaitable
    except Fault as fault:
        return fault.kind
    raise AssertionError("no fault")


class Gate(Gated):
    """An encode that waits until it is let go."""

    def __init__(self, failure=None):
        super().__init__(lambda given: None, failure, held=True)

    async def encode(self, slot):
        """The slot itself is not kept: it would not be free again."""
        await self(None)
