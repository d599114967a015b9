"""MedSAM2's six engines in the real Triton behind the real server: a seeded model of a narrow trunk at 128 pixels."""

import numpy as np
import pytest
import tube
from running import Medserve
from sam2_pair import SIDE, build, followed, hugging_face
from tube import COLUMNS, ROWS

from serving.build.nets import medsam2_layout
from serving.client import Client, GrpcClient, MedserveError
from serving.domain.prompt import Box, ObjectPrompt

pytestmark = pytest.mark.integration

SLICES, KEY = 5, 2
BOX = (20, 16, 70, 60)
WINDOW = {"minimum": 0, "maximum": 255}
FLIPS = 1e-3
"""Share of voxels that may differ: memories are rounded to bfloat16, where a float32's last bit may decide."""


@pytest.fixture(scope="module")
def model():
    """One layer of memory attention, of four: they are alike, and each takes seconds to export."""
    return medsam2_layout.load(hugging_face(memory_layers=1).state_dict(), SIDE, memory_layers=1)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    repository = tmp_path_factory.mktemp("medsam2")
    build(model, repository)
    with Medserve(MEDSERVE_REPOSITORY__PATH=str(repository)) as running:
        yield running


@pytest.fixture(scope="module")
def voxels():
    """(slices, rows, columns) uint8."""
    return tube.voxels(SLICES)


@pytest.fixture(scope="module")
def volume(voxels):
    return tube.nifti(voxels, (1.0, 1.0, 3.0))


def test_a_box_on_the_key_slice_is_followed_both_ways(served, model, voxels, volume):
    told = []
    with Client(served.http_url) as client:
        said = {"boxes": [BOX], "slice": KEY, "window": WINDOW, "output": "packed", "model": "medsam2"}
        found = client.segment_volume(volume, progress=told.append, **said).masks[0]
    expected = followed(model, voxels, ObjectPrompt(box=Box(*BOX)), KEY)
    assert 0.01 < expected.mean() < 0.99
    assert (found != expected).mean() <= FLIPS
    assert [each.slice for each in told] == [2, 3, 4, 1, 0]


def test_a_mask_on_the_key_slice_is_followed_too(served, model, voxels, volume):
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[20:56, 24:64] = True
    with GrpcClient(served.grpc_address) as client:
        said = {"objects": [{"mask": mask, "slice": KEY}], "window": WINDOW, "output": "packed", "model": "medsam2"}
        found = client.segment_volume(volume, **said).masks[0]
    assert (found != followed(model, voxels, mask, KEY)).mean() <= FLIPS
    assert (found[KEY] == mask).mean() > 0.97


def test_a_slice_alone_is_the_key_slice(served, model, voxels):
    expected = followed(model, voxels[KEY : KEY + 1], ObjectPrompt(box=Box(*BOX)), 0)[0]
    with Client(served.http_url) as client:
        first = client.segment(voxels[KEY], boxes=[BOX], model="medsam2")
        again = client.segment(voxels[KEY], boxes=[BOX, (5, 5, 30, 40)], model="medsam2")
    assert first.features == "miss"
    assert again.features == "hit"
    # Small holes are filled in volumes, as sam2's video predictor does, and left in pictures, as its image predictor does.
    assert (first.masks[0].array != expected).mean() <= 0.05
    assert np.array_equal(first.masks[0].array, again.masks[0].array)


def test_an_empty_mask_is_refused(served, volume):
    empty = np.zeros((ROWS, COLUMNS), bool)
    with Client(served.http_url) as client, pytest.raises(MedserveError, match="mask is empty"):
        client.segment_volume(volume, objects=[{"mask": empty, "slice": KEY}], model="medsam2")
