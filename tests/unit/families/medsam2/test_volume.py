"""The family on a whole volume, over a real arena of few slots: `test_propagate` holds what it follows objects by to sam2's."""

import asyncio
import gzip

import nibabel
import numpy as np
import pytest
from arenas import small_arena
from sam2_pair import SIDE, ArenaEngine, engine_of, followed, hugging_face, record

from serving.build.nets import medsam2_layout
from serving.domain.image import RangeWindow
from serving.domain.prompt import Box, MaskLogits, ObjectPrompt
from serving.domain.volume import EncodedVolume, KeyMask, SegmentVolume, VolumeAccepted, VolumeObject, VolumeProgress
from serving.embeddings.store import FeaturesStore
from serving.errors import Fault, Kind
from serving.families.family import Tools
from serving.families.medsam2.family import DECLARATION
from serving.imaging import volumes
from serving.settings import LimitSettings, VolumeSettings
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

COLUMNS, ROWS, DEPTH = 60, 44, 7
SLOT_BYTES = 4 * (64 * 256 + 64 * 16 * 16 + 32 * 32 * 32)
BOX = Box(10, 8, 40, 30)


@pytest.fixture(scope="module")
def model():
    return medsam2_layout.load(hugging_face().state_dict(), SIDE)


def scan():
    """(columns, rows, slices) uint8."""
    rng = np.random.default_rng(5)
    x, y = np.mgrid[:COLUMNS, :ROWS]
    slices = [90 * (np.hypot(x - 20 - 2 * z, y - 18 - z) < 4 + z) + rng.normal(70, 12, x.shape) for z in range(DEPTH)]
    return np.stack(slices, axis=2).clip(0, 255).astype(np.uint8)


class Served:
    """The family; `ask` gives the label map [slice, row, column]."""

    def __init__(self, model, arena):
        self.told, self.engines = [], {}

        def engine(spec, record):
            part = spec.name.removeprefix("medsam2_")
            self.engines[part] = engine_of(ArenaEngine, model, part, spec)
            self.engines[part].arena = arena
            return self.engines[part]

        async def run(work):
            return work()

        def read(encoded):
            return volumes.read(encoded, LimitSettings(), VolumeSettings())

        store = FeaturesStore(arena, 60)
        tools = Tools(engine, None, run, store, read_volume=read, kept_features_bytes=DEPTH * SLOT_BYTES)
        self.family = DECLARATION.open(record(), tools)

    async def ask(self, *objects):
        volume = nibabel.Nifti1Image(scan(), np.diag([2.0, 1.0, 3.0, 1.0])).to_bytes()
        task = SegmentVolume(EncodedVolume((volume,), window=RangeWindow(0, 255)), objects)

        async def tell(event):
            self.told.append(event)

        answer = await self.family.answer_volume(fixtures.request(task, deadline_s=600), Stages(), tell)
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.data))
        return np.asarray(image.dataobj).transpose(2, 1, 0)


@pytest.fixture
def served(model):
    with small_arena(slots=6, slot_bytes=SLOT_BYTES) as arena:
        yield Served(model, arena)


def test_a_box_goes_to_both_ends(model, served):
    found = asyncio.run(served.ask(VolumeObject(ObjectPrompt(box=BOX), key=3)))
    expected = followed(model, scan().T, ObjectPrompt(box=BOX), 3)
    assert 0.02 < expected.mean() < 0.98
    assert np.array_equal(found, expected)
    accepted, *progress = served.told
    assert isinstance(accepted, VolumeAccepted)
    assert accepted.slices == DEPTH
    assert [each.slice for each in progress] == [3, 4, 5, 6, 2, 1, 0]
    assert all(isinstance(each, VolumeProgress) for each in progress)


def test_a_mask_stays_as_it_is_and_is_followed_within_its_extent(model, served):
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[10:30, 14:44] = True
    found = asyncio.run(served.ask(VolumeObject(KeyMask(mask), key=2, first=1, last=4)))
    assert np.array_equal(found[1:5], followed(model, scan().T[1:5], mask, 1))
    assert not found[[0, 5, 6]].any()
    assert (found[2].astype(bool) == mask).mean() > 0.97


def test_each_slice_is_encoded_once_for_all_objects_and_both_directions(served):
    objects = [VolumeObject(ObjectPrompt(box=BOX), key=key) for key in (1, 3, 5)]
    asyncio.run(served.ask(*objects))
    assert served.engines["image_encoder"].calls == DEPTH
    assert served.engines["mask_decoder"].calls == len(objects)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (KeyMask(np.zeros((ROWS, COLUMNS), bool)), "mask is empty"),
        (ObjectPrompt(logits=MaskLogits(np.zeros((256, 256), np.float32))), "need a box or a point"),
        (ObjectPrompt(box=Box(0, 0, COLUMNS + 1, 5)), "leaves the image"),
    ],
)
def test_what_it_cannot_follow_is_refused_before_anything_is_encoded(served, shown, said):
    with pytest.raises(Fault, match=said) as caught:
        asyncio.run(served.ask(VolumeObject(shown, key=1)))
    assert caught.value.kind is Kind.INVALID
    assert served.told == []
    assert served.engines["image_encoder"].calls == 0
