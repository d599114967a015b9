"""A checkpoint of MedSAM's layout, built and served by the real Triton: what comes back is what PyTorch makes of it."""

from functools import partial

import numpy as np
import pytest
import torch
from arenas import small_arena
from sams import tiny_sam

from serving import slots
from serving.build.build import build
from serving.build.nets import medsam, sam_parts
from serving.domain.image import EncodedImage, RawLayout
from serving.domain.prompt import Box, MaskLogits, ObjectPrompt, Point
from serving.domain.request import Deadline, Request, Segment
from serving.embeddings.store import FeaturesStore
from serving.engines.triton import TritonServer
from serving.errors import SetupError
from serving.families.family import Tools
from serving.families.medsam.family import DECLARATION, procedure
from serving.families.promptable import Promptable
from serving.families.sam_engines import FEATURES
from serving.imaging.decode import decode
from serving.local.triton import EmbeddedTriton
from serving.settings import LimitSettings
from serving.telemetry.stages import Stages

pytestmark = pytest.mark.integration
LONG_S = 120
SLOT_BYTES = slots.offsets([4 * int(np.prod(spec.shape)) for spec in FEATURES])[-1]
WIDTH, HEIGHT = 300, 200
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
IMAGE = EncodedImage(PICTURE.tobytes(), "application/octet-stream", RawLayout("uint8", PICTURE.shape))
EARLIER = 3 * np.random.default_rng(1).standard_normal((256, 256)).astype(np.float32)
OBJECTS = (
    ObjectPrompt(box=Box(30, 40, 210, 150)),
    ObjectPrompt(box=Box(10, 10, 60, 190.5)),
    ObjectPrompt(points=(Point(100, 50), Point(20, 20, positive=False))),
    ObjectPrompt(box=Box(30, 40, 210, 150), logits=MaskLogits(EARLIER)),
)
TOKENS = (
    [[30, 40, 2], [210, 150, 3]],
    [[10, 10, 2], [60, 190.5, 3]],
    [[100, 50, 1], [20, 20, 0], [0, 0, -1]],
    [[30, 40, 2], [210, 150, 3]],
)
"""The same in the original frame: x, y and SAM's label."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the repository, the model's record, its checkpoint)."""
    work = tmp_path_factory.mktemp("medsam")
    checkpoint = work / "tiny.pth"
    torch.save({"model": {f"module.{key}": value for key, value in tiny_sam().state_dict().items()}}, checkpoint)
    make = partial(build, "medsam", work, work / "repository", preprocessing="july-2023", say=lambda line: None)
    (manifest,) = make(checkpoints=(checkpoint,))
    damaged = work / "damaged.pth"
    damaged.write_bytes(checkpoint.read_bytes()[:-5000])
    before = sorted(path.name for path in (work / "repository").rglob("*"))
    with pytest.raises(SetupError, match=r"damaged\.pth is damaged"):
        make(checkpoints=(damaged,))
    assert sorted(path.name for path in (work / "repository").rglob("*")) == before
    return work / "repository", manifest, checkpoint


@torch.inference_mode()
def pytorch(model, manifest, tokens, earlier):
    """The stock modules on the same preprocessing: logits (4, 256, 256) of one object, one mask and three candidates."""
    made = procedure(manifest)
    scale = made.scale((WIDTH, HEIGHT))
    table = torch.tensor(tokens, dtype=torch.float32)
    features = model.image_encoder(torch.from_numpy(made.prepare(decode(IMAGE, LimitSettings())).tensor))
    sparse = model.prompt_encoder((table[:, :2] * torch.tensor([scale.x, scale.y]))[None], table[None, :, 2].long())
    if earlier is None:
        return torch.cat(sam_parts.Decode(model)(features, sparse)[::2], dim=1)[0].numpy()
    dense = model.prompt_encoder.mask_downscaling(torch.from_numpy(earlier)[None, None])
    return model.mask_decoder(features + dense, sam_parts.Decode(model).positions, sparse)[0][0].numpy()


async def run(work):
    return work()


async def test_served_masks_are_pytorch_s(built, tmp_path):
    repository, manifest, checkpoint = built
    names = tuple(record.name for records in manifest.engines.values() for record in records)
    model = medsam.load(torch.load(checkpoint, weights_only=True))
    with (
        small_arena(slot_bytes=SLOT_BYTES) as arena,
        EmbeddedTriton(repository, names, tmp_path, start_timeout_s=LONG_S, arena=arena.region) as triton,
    ):
        server = TritonServer(triton.grpc_address, LONG_S, arena.nbytes)
        tools = Tools(server.engine, partial(decode, limits=LimitSettings()), run, FeaturesStore(arena, 60))
        family = DECLARATION.open(manifest, tools)
        assert isinstance(family, Promptable)
        tasks = [Segment(IMAGE, OBJECTS, many, return_logits=True) for many in (False, True)]
        answers = [await family.answer(Request(task, Deadline.after(LONG_S), "r"), Stages()) for task in tasks]
        await server.close()
    assert [answer.features for answer in answers] == ["miss", "hit"]
    for number, (prompt, tokens) in enumerate(zip(OBJECTS, TOKENS, strict=True)):
        wanted = pytorch(model, manifest, tokens, None if prompt.logits is None else EARLIER)
        found = [mask for answer in answers for mask in answer.result.masks if mask.object == number]
        assert len(found) == 4
        for mask, logits in zip(found, wanted, strict=True):
            # The answer's logits are float16: half a unit in the last place of the largest.
            assert np.abs(mask.logits.astype(np.float32) - logits).max() <= (1e-4 + 2**-11) * np.abs(logits).max()
            assert mask.mask.size_px == (WIDTH, HEIGHT)
            expected = procedure(manifest).mask(logits, (1024, 1024), (WIDTH, HEIGHT))
            assert abs(mask.mask.area_px - int(expected.sum())) <= 1e-4 * WIDTH * HEIGHT
