"""A checkpoint of MedSAM's layout, built and served by the real server: what comes back is what PyTorch makes of it."""

import io
import zipfile

import numpy as np
import pytest
import torch
import tube
from running import Medserve
from series import series_of
from tube import COLUMNS, ROWS

from serving.build.build import build
from serving.build.nets import medsam, sam_parts
from serving.client import Client, GrpcClient
from serving.domain.image import EncodedImage, RawLayout
from serving.errors import SetupError
from serving.families.medsam.family import procedure
from serving.families.medsam.volume import next_box
from serving.imaging.decode import decode
from serving.settings import LimitSettings

pytestmark = pytest.mark.integration
WIDTH, HEIGHT = 300, 200
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
IMAGE = EncodedImage(PICTURE.tobytes(), "application/octet-stream", RawLayout("uint8", PICTURE.shape))
EARLIER = 3 * np.random.default_rng(1).standard_normal((256, 256)).astype(np.float32)
OBJECTS = (
    {"box": [30, 40, 210, 150]},
    {"box": [10, 10, 60, 190.5]},
    {"points": [[100, 50, 1], [20, 20, 0]]},
    {"box": [30, 40, 210, 150], "mask": EARLIER},
)
TOKENS = (
    [[30, 40, 2], [210, 150, 3]],
    [[10, 10, 2], [60, 190.5, 3]],
    [[100, 50, 1], [20, 20, 0], [0, 0, -1]],
    [[30, 40, 2], [210, 150, 3]],
)
"""The same in the original frame: x, y and SAM's label."""

SLICES = 3
BOX = (22, 18, 62, 58)
RANGE = {"minimum": 0, "maximum": 255}


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


def contents(repository):
    return {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.is_file()}


def test_a_damaged_checkpoint_is_refused_and_what_is_built_stays(small_medsam, tmp_path):
    repository, _, checkpoint = small_medsam
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(checkpoint.read_bytes()[:-5000])
    before = contents(repository)
    with pytest.raises(SetupError, match=r"damaged\.pth is damaged"):
        build("medsam", tmp_path, repository, checkpoints=(damaged,), preprocessing="july-2023", say=lambda line: None)
    assert contents(repository) == before


@pytest.fixture(scope="module")
def served(small_medsam):
    with Medserve(MEDSERVE_REPOSITORY__PATH=str(small_medsam[0])) as running:
        yield running


def test_served_masks_are_pytorch_s(small_medsam, served):
    _, manifest, checkpoint = small_medsam
    model = medsam.load(torch.load(checkpoint, weights_only=True))
    with Client(served.http_url) as client:
        said = {"objects": OBJECTS, "model": "medsam", "return_logits": True}
        answers = [client.segment(PICTURE, multimask=many, **said) for many in (False, True)]
    assert [answer.features for answer in answers] == ["miss", "hit"]
    for number, (prompt, tokens) in enumerate(zip(OBJECTS, TOKENS, strict=True)):
        wanted = pytorch(model, manifest, tokens, prompt.get("mask"))
        found = [mask for answer in answers for mask in answer.masks if mask.object == number]
        assert len(found) == 4
        for mask, logits in zip(found, wanted, strict=True):
            # The answer's logits are float16: half a unit in the last place of the largest.
            assert np.abs(mask.logits.astype(np.float32) - logits).max() <= (1e-4 + 2**-11) * np.abs(logits).max()
            assert mask.size == (HEIGHT, WIDTH)
            expected = procedure(manifest).mask(logits, (1024, 1024), (WIDTH, HEIGHT))
            assert abs(mask.area_px - int(expected.sum())) <= 1e-4 * WIDTH * HEIGHT


@pytest.fixture(scope="module")
def voxels():
    """(slices, rows, columns) uint8."""
    return tube.voxels(SLICES)


@pytest.fixture(scope="module")
def volume(voxels):
    return tube.nifti(voxels, (1.5, 1.5, 4.0))


def test_a_volume_is_its_slices_each_with_the_box_of_the_mask_before(served, voxels, volume):
    told, said = [], {"boxes": [[*BOX[:2], 0, *BOX[2:], SLICES - 1]], "window": RANGE, "output": "packed"}
    with Client(served.http_url) as client, GrpcClient(served.grpc_address) as grpc:
        found = client.segment_volume(volume, progress=told.append, **said).masks[0]
        assert np.array_equal(grpc.segment_volume(volume, **said).masks[0], found)
        boxes, scale = {1: BOX}, 1024 / np.array([COLUMNS, ROWS, COLUMNS, ROWS])
        boxes[0] = boxes[2] = next_box(0, found[1], (1024, 1024)) / scale
        for z, box in boxes.items():
            assert np.array_equal(client.segment(voxels[z], boxes=[box]).masks[0].array, found[z])
    assert 0.01 < found.mean() < 0.99
    assert [(each.done, each.total, each.slice) for each in told] == [(1, 3, 1), (2, 3, 2), (3, 3, 0)]


def test_a_series_with_a_box_on_each_slice_is_each_slice_on_its_own(served, voxels):
    boxes = [(20 + z, 18, 60 + 2 * z, 58) for z in range(SLICES)]
    shown = [{"box": [*box[:2], z, *box[2:], z], "label": 0} for z, box in enumerate(boxes)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        files = series_of(voxels.T.astype(np.int16), step=(0, 0, 4.0), spacing=(1.5, 1.5), intercept=0)
        for n, data in reversed(list(enumerate(files))):
            archive.writestr(f"{n}.dcm", data)
    with Client(served.http_url) as client:
        found = client.segment_volume(packed.getvalue(), objects=shown, window=RANGE, output="packed")
        for z, box in enumerate(boxes):
            assert np.array_equal(client.segment(voxels[z], boxes=[box]).masks[0].array, found.masks[0][z])
    assert len(found.objects) == 1
    assert found.frame.spacing_mm == (1.5, 1.5, 4.0)
