"""A SAM-like family over a small real arena, asked for volumes: what the tests of its walk share."""

import gzip

import nibabel
import numpy as np

from serving.domain.image import RangeWindow
from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import Priority
from serving.domain.volume import EncodedVolume, SegmentVolume, VolumeObject
from serving.embeddings.store import FeaturesStore
from serving.engines.fake import FakeEngine
from serving.families.family import Tools
from serving.imaging import volumes
from serving.settings import LimitSettings, VolumeSettings
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

PARTS = ("image_encoder", "mask_decoder", "mask_refiner")
COLUMNS, ROWS, DEPTH = 60, 44, 9
SLOT_BYTES = 4 * 256 * 64 * 64


class ArenaEngine(FakeEngine):
    """A fake whose Features are one float32 tensor that really lies in the arena's slot."""

    arena = None

    async def infer(self, inputs, deadline, *, slot=None, **more):
        assert more["priority"] is Priority.BULK
        view = self.arena.view(slot).view(np.float32).reshape(1, 256, 64, 64)
        if self.spec.reads:
            self.held[slot.index, slot.generation] = {"features": view}
            return await super().infer(inputs, deadline, slot=slot, **more)
        await super().infer(inputs, deadline, slot=slot, **more)
        view[:] = self.held.pop((slot.index, slot.generation))["features"]
        return {}


def scan():
    """(columns, rows, slices) uint8: a bright tube that wanders, with noise."""
    rng = np.random.default_rng(5)
    x, y = np.mgrid[:COLUMNS, :ROWS]
    slices = [90 * (np.hypot(x - 20 - 2 * z, y - 18 - z) < 4 + z) + rng.normal(70, 12, x.shape) for z in range(DEPTH)]
    return np.stack(slices, axis=2).clip(0, 255).astype(np.uint8)


def objects(boxes):
    """[x0, y0, z0, x1, y1, z1] each."""
    return tuple(VolumeObject(ObjectPrompt(box=Box(x0, y0, x1, y1)), first=z0, last=z1) for x0, y0, z0, x1, y1, z1 in boxes)


class Served:
    """A family. `encode`: (1, 3, side, side) -> Features (1, 256, 64, 64); `decode`: these, points, labels -> (P, 1, S, S)."""

    def __init__(self, declaration, manifest, arena, kept_bytes, encode, decode):
        self.manifest, self.told, self.engines = manifest, [], {}

        def decoded(inputs):
            return {"mask": decode(inputs["features"], inputs["points"][0], inputs["labels"][0])[None]}

        def engine(spec, record):
            made = ArenaEngine(spec, (lambda inputs: {"features": encode(inputs["image"])}) if spec.writes else decoded)
            made.arena = arena
            self.engines[spec.name.removeprefix(f"{manifest.model}_")] = made
            return made

        async def run(work):
            return work()

        def read(encoded):
            return volumes.read(encoded, LimitSettings(), VolumeSettings())

        store = FeaturesStore(arena, 60)
        self.family = declaration.open(
            manifest, Tools(engine, None, run, store, read_volume=read, kept_features_bytes=kept_bytes)
        )

    async def ask(self, objects, **more):
        """The label map [slice, row, column] of `scan`; `answer` and `told` hold the rest."""
        volume = nibabel.Nifti1Image(scan(), np.diag([2.0, 1.0, 3.0, 1.0])).to_bytes()
        task = SegmentVolume(EncodedVolume((volume,), window=RangeWindow(0, 255)), objects, **more)
        request = fixtures.request(task)
        object.__setattr__(request, "priority", Priority.BULK)

        async def tell(event):
            self.told.append(event)

        answer = await self.family.answer_volume(request, Stages(), tell)
        self.answer = answer
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.data))
        return np.asarray(image.dataobj).transpose(2, 1, 0)

    def calls(self, part):
        return self.engines[part].calls
