"""A series of phantoms with planted features: located within 6 mm from three supports, in the query's own geometry."""

import numpy as np
import phantoms
import pytest
import torch
from phantoms import ORGANS, PARTS, QUERY, SUPPORTS

from serving.domain.volume import (
    ClassNames,
    EncodedVolume,
    SegmentVolume,
    VolumeAccepted,
    VolumeAnswer,
    VolumeFormat,
    VolumeFrame,
    VolumeLocating,
)
from serving.engines.fake import FakeEngine
from serving.errors import Fault, Kind, SetupError
from serving.families.family import Tools
from serving.families.medlsam import supports
from serving.families.medlsam.family import DECLARATION
from serving.families.medlsam.locate import MARGIN, objects
from serving.families.medlsam.supports import SupportSet
from serving.imaging import volumes
from serving.settings import LimitSettings, VolumeSettings
from serving.telemetry.stages import Stages
from tests.unit.families import fixtures

MANIFEST = fixtures.manifest("medlsam", "adaptive", tuple(PARTS), {"channels": phantoms.CHANNELS})
CLASSES = {name: number for number, name in enumerate(ORGANS, start=1)}
NETS = {"position": phantoms.Position(), "describe": phantoms.Describe(), "refine": phantoms.QuickRefine()}
NAMES = {"position": ("position",), "describe": ("position", "coarse", "middle", "fine"), "refine": ("similarity",)}


@torch.inference_mode()
def run_net(part, inputs):
    ordered = [inputs[name] for name in ("patch", "coarse", "middle", "fine") if name in inputs]
    out = NETS[part](*(torch.from_numpy(np.ascontiguousarray(each)) for each in ordered))
    out = out if isinstance(out, tuple) else (out,)
    return {name: value.numpy() for name, value in zip(NAMES[part], out, strict=True)}


def read(data):
    return volumes.read(EncodedVolume((data,)), LimitSettings(), VolumeSettings())


@pytest.fixture(scope="module")
def pairs():
    made = []
    for start, size, spacing in SUPPORTS:
        values, labels = phantoms.body(start, size, spacing)
        affine = phantoms.affine_las(spacing)
        image, label = (read(phantoms.nifti(each, affine)) for each in (values, labels))
        made.append((supports.prepared(image)[0], supports.prepared_labels(label)))
    return made


@pytest.fixture(scope="module")
def folder(pairs, tmp_path_factory):
    """Two sets on the server: `whole` and `parts`."""
    found = tmp_path_factory.mktemp("supports")
    for name, mode, classes in (("whole", "wpl", CLASSES), ("parts", "spl", {"liver": 1})):
        made = supports.make(pairs, classes, mode, 5, lambda patch: run_net("describe", {"patch": patch}))
        supports.write(found / f"{name}.npz", SupportSet(MANIFEST.digest, mode, made))
    return found


class Peer:
    """Stands for the model that segments: keeps what it was asked."""

    manifest = fixtures.manifest("litemedsam", "adaptive", ("image_encoder",))
    walks = True
    asked = volume = None

    async def answer_volume(self, request, stages, tell, volume=None):
        self.asked, self.volume = request.task.objects, volume
        frame = VolumeFrame((1, 1, 1))
        await tell(VolumeAccepted(frame, 1, 1, self.manifest.info()))
        return VolumeAnswer(b"", VolumeFormat.NIFTI, frame, (), self.manifest.info(), {})


def opened(folder, peer, manifest=MANIFEST):
    def engine(spec, record):
        part = record.name.removeprefix("medlsam_")
        return FakeEngine(spec, lambda inputs: run_net(part, inputs))

    reader = lambda encoded: volumes.read(encoded, LimitSettings(), VolumeSettings())  # noqa: E731
    family = None
    tools = Tools(
        engine, fixtures.decode, fixtures.run, read_volume=reader, supports=folder,
        peers=lambda: {"medlsam": family, **({"lite": peer} if peer else {})},
    )  # fmt: skip
    family = DECLARATION.open(manifest, tools)
    return family


def asked(names, supports_name="whole", query=None, axis=2):
    return fixtures.request(SegmentVolume(EncodedVolume((query,)), ClassNames(names, supports_name), axis), deadline_s=300)


def scan():
    values, labels = phantoms.body(*QUERY)
    return values, labels, phantoms.affine_las(QUERY[2])


def turned(values, affine):
    """The same scan stored as [z, x flipped, y]: another order of axes and another direction."""
    place = np.zeros((4, 4))
    place[2, 0] = place[1, 2] = place[3, 3] = 1
    place[0, 1], place[0, 3] = -1, values.shape[0] - 1
    return np.ascontiguousarray(values.transpose(2, 0, 1)[:, ::-1]), affine @ place


async def ignore(event):
    return None


@pytest.mark.parametrize("other_axes", [False, True], ids=["LAS", "turned"])
async def test_the_boxes_are_within_6_mm_in_the_query_s_own_geometry(folder, other_axes):
    values, labels, affine = scan()
    if other_axes:
        (values, affine), (labels, _) = turned(values, affine), turned(labels, affine)
    peer, told = Peer(), []

    async def tell(event):
        told.append(event)

    axis = 0 if other_axes else 2
    answer = await opened(folder, peer).answer_volume(
        asked(tuple(CLASSES), query=phantoms.nifti(values, affine), axis=axis), Stages(), tell
    )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    across, down = (each for each in range(3) if each != axis)
    assert [each.label for each in peer.asked] == [0, 1]
    assert peer.volume.samples.shape == values.shape, "the volume is read once, for both models"
    for number, item in enumerate(peer.asked, start=1):
        box = item.shown.box
        found = np.zeros((2, 3))
        found[:, axis] = item.first, item.last
        found[:, across], found[:, down] = (box.x0, box.x1), (box.y0, box.y1)
        for each in (across, down):
            grown = MARGIN * labels.shape[each]
            found[:, each] += grown, -grown
        assert (np.abs(found - phantoms.box_of(labels, number)) * spacing).max() <= 6.0
        assert (item.follow, item.key) == (False, item.first)
    accepted, *locating = told
    assert locating == [VolumeLocating(done, 13) for done in range(14)], "the patches around the centre, and six points a class"
    assert (accepted.objects, accepted.slices) == (2, 2 * values.shape[axis]), "said before it is located, and once"
    assert accepted.model.name == answer.model.name == "medlsam"
    assert {"medlsam_position/1", "litemedsam_image_encoder/1"} <= set(answer.model.engines)


async def test_parts_follow_the_structure_along_the_body(folder):
    values, labels, affine = scan()
    peer = Peer()
    await opened(folder, peer).answer_volume(asked(("liver",), "parts", phantoms.nifti(values, affine)), Stages(), ignore)
    assert len(peer.asked) >= 3
    assert {each.label for each in peer.asked} == {0}
    slices = [n for each in peer.asked for n in range(each.first, each.last + 1)]
    assert len(slices) == len(set(slices))
    widths = [each.shown.box.x1 - each.shown.box.x0 for each in peer.asked]
    assert max(widths[1:-1]) > widths[0]
    truth = phantoms.box_of(labels, 1)
    assert abs(min(slices) - truth[0, 2]) * QUERY[2][2] <= 6
    assert abs(max(slices) - truth[1, 2]) * QUERY[2][2] <= 6


def test_later_parts_take_shared_slices_and_gaps_stay_empty():
    frame = VolumeFrame((100, 80, 30))
    boxes = np.array([[[10, 20, 3], [30, 40, 8]], [[12, 22, 6], [32, 42, 10]], [[0, 70, 15], [99, 79, 16]]])
    made = objects([boxes], frame, 2)
    assert [(each.first, each.last) for each in made] == [(3, 5), (6, 10), (15, 16)]
    first, last = made[0].shown.box, made[2].shown.box
    assert (first.x0, first.y1) == pytest.approx((10 - 1000 / 1024, 40 + 800 / 1024))
    assert (last.x0, last.x1, last.y1) == (0.0, 99 + 1000 / 1024, 79 + 800 / 1024) or last.x1 <= 100
    for each in made:
        each.within(frame, 2)


@pytest.mark.parametrize(
    ("names", "supports_name", "said"),
    [
        (("liver",), "nothing", "no support set of this name; there are: parts, whole"),
        (("liver",), "../whole", "must be the name of a support set"),
        (("liver", "spleen"), "whole", "does not show every class asked for; it shows: liver, kidney"),
    ],
)
async def test_wrong_sets_and_classes_are_refused_before_the_volume_is_read(folder, names, supports_name, said):
    with pytest.raises(Fault, match=said) as caught:
        await opened(folder, Peer()).answer_volume(asked(names, supports_name, b"x"), Stages(), ignore)
    assert caught.value.kind is Kind.INVALID
    assert str(folder) not in caught.value.message


async def test_a_volume_without_geometry_is_refused_before_it_is_accepted(folder):
    values, _, _ = scan()
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: {} {} {}\nendian: little\nencoding: raw\n\n".format(*values.shape)
    bare = head.encode() + np.asfortranarray(values.astype("<i2")).tobytes("F")
    told = []

    async def tell(event):
        told.append(event)

    with pytest.raises(Fault, match="does not say how it lies in space") as caught:
        await opened(folder, Peer()).answer_volume(asked(("liver",), query=bare), Stages(), tell)
    assert caught.value.kind is Kind.INVALID
    assert told == []


async def test_a_set_of_another_checkpoint_is_refused(folder):
    other = MANIFEST.model_copy(update={"digest": "e" * 64})
    with pytest.raises(Fault, match="made with another checkpoint"):
        await opened(folder, Peer(), other).answer_volume(asked(("liver",), query=b"x"), Stages(), ignore)


async def test_without_a_model_that_segments_there_is_no_answer(folder):
    with pytest.raises(Fault, match="no model is served that could segment"):
        await opened(folder, None).answer_volume(asked(("liver",), query=b"x"), Stages(), ignore)


def test_a_class_that_a_support_does_not_show_is_said(pairs):
    with pytest.raises(SetupError, match="support volume 1 shows nothing of spleen, label 9"):
        supports.make(pairs, {"spleen": 9}, "wpl", 2, lambda patch: {})


def test_a_set_is_read_as_it_was_written(folder):
    found = supports.read(folder, "parts")
    assert (found.digest, found.mode, list(found.structures)) == (MANIFEST.digest, "spl", ["liver"])
    liver = found.structures["liver"]
    assert len(liver.positions) % 6 == 0
    assert liver.features["fine"].shape == (len(liver.positions), 12, 8, 8, 8)
    # A mean of unit vectors is at most as long.
    assert np.linalg.norm(liver.features["fine"], axis=1).max() <= 1 + 1e-5
