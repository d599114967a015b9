"""A real Triton with its arena, and how a test asks LiteMedSAM's engines in it."""

import asyncio
import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from arenas import small_arena
from running import command_line, descendants, wait_until

from serving import shm, slots
from serving.build.nets import litemedsam
from serving.domain.request import Deadline
from serving.embeddings.arena import Arena
from serving.engines.triton import TritonServer
from serving.errors import Fault, Kind
from serving.families.litemedsam.engines import FEATURES, specs
from serving.local.triton import EmbeddedTriton
from serving.manifest import EngineRecord
from serving.settings import Settings

REPOSITORY = Settings().repository.path
LIGHT = ("synthetic_cxr_text_encoder",)
PARTS = ("image_encoder", "mask_decoder", "mask_refiner")
SIZES = [4 * int(np.prod(spec.shape)) for spec in FEATURES]
SLOT_BYTES = slots.offsets(SIZES)[-1]
AWAY = (Kind.ENGINE_UNAVAILABLE, Kind.ENGINE_FAILED)
LONG_S = 120
"""Of deadlines that are not to pass: the machine is shared."""


def embedded(run_dir, models=LIGHT, **more):
    run_dir.mkdir(parents=True, exist_ok=True)
    return EmbeddedTriton(more.pop("repository", REPOSITORY), models, run_dir, start_timeout_s=LONG_S, **more)


@dataclass
class Node:
    """A Triton and its arena, as a replica on the same node uses them."""

    triton: EmbeddedTriton
    arena: Arena
    server: TritonServer
    manifest: object

    def engine(self, part, prefix=""):
        """The engine of a part; with a prefix, a variant of it."""
        record = self.manifest.engines[part][0]
        if prefix:
            features = "region" if prefix == "region_" else "slot"
            record = EngineRecord(name=prefix + part, digest="d", features=features)
        return self.server.engine(specs(self.manifest)[part], record)

    async def encode(self, key, image, prefix=""):
        """The slot with the Features of an image."""
        slot = self.arena.claim(key)
        assert not isinstance(slot, str), slot
        assert await self.engine("image_encoder", prefix).infer({"image": image}, Deadline.after(LONG_S), slot=slot) == {}
        self.arena.commit(slot, f"h.{key}", b"")
        return slot

    async def decode(self, slot, prompt, prefix="", part="mask_decoder", **more):
        return await self.engine(part, prefix).infer(prompt, Deadline.after(LONG_S), slot=slot, **more)

    def features(self, slot):
        """name -> a copy of what lies in the slot."""
        place = np.fromfile(shm.ROOT / slot.region, np.uint8, SLOT_BYTES, offset=slot.offset)
        starts = slots.offsets(SIZES)
        return {
            spec.name: place[start : start + size].view(np.float32).reshape(1, *spec.shape)
            for spec, start, size in zip(FEATURES, starts, SIZES, strict=False)
        }

    def stub(self, engine):
        """The pid of an engine's process."""
        stubs = [pid for pid in descendants(self.triton.pid) if re.search(rf"stub .*/{engine}/", command_line(pid))]
        assert len(stubs) == 1, [command_line(pid) for pid in descendants(self.triton.pid)]
        return stubs[0]


@contextmanager
def started(run_dir, models, **more):
    with (
        small_arena(slots=6, slot_bytes=SLOT_BYTES, ttl_s=3600) as arena,
        embedded(run_dir, models, arena=arena.region, **more) as triton,
    ):
        yield triton, arena


def picture(seed):
    """A smooth image (1, 3, 256, 256) with a disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    disc = np.hypot(x - 100 - 5 * seed, y - 128) < 30 + 4 * seed
    return np.repeat((0.2 + 0.5 * disc + rng.normal(0, 0.02, (256, 256))).clip(0, 1)[None, None], 3, 1).astype(np.float32)


def boxes(*several):
    """Objects as boxes of the model frame."""
    points = np.array(several, np.float32).reshape(1, -1, 2, 2)
    return {"points": points, "labels": np.tile([litemedsam.TOP, litemedsam.BOTTOM], (1, len(several), 1))}


PROMPT = boxes((60, 80, 150, 180), (20, 20, 90, 100))
EARLIER = {"logits": np.zeros((1, 2, 1, 256, 256), np.float32), "earlier": np.ones((1, 2), np.float32)}


def near(one, other, part=1e-4):
    return np.abs(one - other).max() <= part * np.abs(other).max()


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


async def outcome(awaitable):
    """The answer, or the Fault as a value."""
    try:
        return await awaitable
    except Fault as fault:
        return fault


async def kind_of(awaitable):
    """The kind of the Fault that is raised, or None. The error itself is let go: its frames hold what they worked on."""
    return getattr(await outcome(awaitable), "kind", None)


async def once_back(call, *away):
    """The first answer of what is coming back; until then it may only be away."""
    async with asyncio.timeout(LONG_S):
        while isinstance(found := await outcome(call()), Fault):
            assert found.kind in away
            await asyncio.sleep(0.1)
    return found


async def until(condition):
    """Wait for a condition with the event loop at work."""
    await asyncio.to_thread(wait_until, condition, LONG_S, 0.01)
