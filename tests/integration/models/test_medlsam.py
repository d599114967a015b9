"""Structures by name over the running server: a phantom's support set made by the command, planted engines, real slices."""

import asyncio
import gzip
import os
import subprocess
import sys

import nibabel
import numpy as np
import phantoms
import pytest
import torch
from phantoms import QUERY, SUPPORTS
from running import Medserve

from serving.build import config, export
from serving.build.export import Part
from serving.client import Client, GrpcClient, MedserveError
from serving.domain.image import ImageHandle
from serving.domain.request import Deadline, Lookup, Request
from serving.domain.volume import EncodedVolume
from serving.engines.fake import FakeEngine
from serving.families.medlsam import supports as support_sets
from serving.families.medlsam.engines import KERNELS, specs
from serving.families.medlsam.locate import Locator, objects
from serving.imaging import volumes
from serving.manifest import EngineRecord, Manifest
from serving.settings import LimitSettings, VolumeSettings, load
from serving.telemetry.stages import Stages

pytestmark = pytest.mark.integration
HU = {"minimum": -500, "maximum": 1000}
OUTPUTS = {"position": ("position",), "describe": ("position", *KERNELS), "refine": ("similarity",)}


def draft(name="medlsam", segmenter=""):
    options = {"channels": phantoms.CHANNELS, "segmenter": segmenter}
    said = {"digest": "p" * 64, "source": "planted", "licence": "", "engines": {}, "options": options}
    return Manifest(model=name, family="medlsam", pool="adaptive", **said)


def planted(repository):
    """The phantom's net as three built engines, and their records: one for the first model that segments, one for MedSAM."""
    patch = torch.rand(1, 1, 64, 64, 64)
    kernels = {name: torch.rand(1, phantoms.CHANNELS, side, side, side) for name, side in KERNELS.items()}
    records = {}
    for name, spec in specs(draft()).items():
        batched = name == "position"
        inputs = {"patch": patch.repeat(2, 1, 1, 1, 1) if batched else patch, **(kernels if name == "refine" else {})}
        part = Part(phantoms.PARTS[name](), inputs, {"patch": {0: "b"}} if batched else {}, OUTPUTS[name], "onnxruntime")
        folder = repository / spec.name
        (folder / "1").mkdir(parents=True)
        export.to_onnx(part, folder / "1" / "model.onnx")
        config.write(folder, spec, "onnxruntime")
        records[name] = (EngineRecord(name=spec.name, digest=name),)
    for made in (draft(), draft("medlsam-medsam", "medsam")):
        made.model_copy(update={"engines": records}).write(repository)


@pytest.fixture(scope="module")
def repository(small_medsam, tmp_path_factory):
    """LiteMedSAM as it is built here, a small MedSAM, and the planted MedLSAM beside them."""
    folder = tmp_path_factory.mktemp("repository")
    for path in (*load().repository.path.glob("litemedsam*"), *small_medsam[0].glob("medsam*")):
        (folder / path.name).symlink_to(path)
    planted(folder)
    return folder


@pytest.fixture(scope="module")
def supports(repository, tmp_path_factory):
    """The folder of sets, with `body` made by the command from three volumes."""
    folder = tmp_path_factory.mktemp("supports")
    command = [sys.executable, "-m", "serving", "models", "support", "body", "--class", "kidney=2"]
    for number, (start, size, spacing) in enumerate(SUPPORTS):
        affine = phantoms.affine_las(spacing)
        for option, values in zip(("image", "label"), phantoms.body(start, size, spacing), strict=True):
            path = folder / f"{option}{number}.nii.gz"
            path.write_bytes(phantoms.nifti(values, affine))
            command += [f"--{option}", str(path)]
    environ = {**os.environ, "MEDSERVE_REPOSITORY__PATH": str(repository), "MEDSERVE_VOLUMES__SUPPORTS": str(folder)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def served(repository, supports):
    settings = {"MEDSERVE_REPOSITORY__PATH": str(repository), "MEDSERVE_VOLUMES__SUPPORTS": str(supports)}
    with Medserve(**settings) as running:
        yield running


@pytest.fixture(scope="module")
def scan():
    return phantoms.nifti(phantoms.body(*QUERY)[0], phantoms.affine_las(QUERY[2]))


def test_structures_are_found_and_segmented_by_name(served, supports, scan):
    _, labels = phantoms.body(*QUERY)
    spacing = np.array(QUERY[2])
    with Client(served.http_url) as client, GrpcClient(served.grpc_address) as grpc:
        said = {model.name: model for model in client.models()}
        assert list(said["medlsam"].prompts) == ["classes"]
        told = []
        given = {"model": "medlsam", "progress": told.append, "deadline_s": 300}
        found = grpc.segment_volume(scan, classes=["kidney"], supports="body", **given)
        for front in (client, grpc):
            with pytest.raises(MedserveError, match="there are: body") as caught:
                front.segment_volume(scan, classes=["kidney"], supports="other")
            assert caught.value.code == "invalid"
            assert str(supports) not in caught.value.message
            with pytest.raises(MedserveError, match="it shows: kidney") as caught:
                front.segment_volume(scan, classes=["spleen"], supports="body")
            assert caught.value.code == "invalid"
    assert found.model.name == "medlsam"
    assert "litemedsam_image_encoder/1" in found.model.engines
    box = phantoms.box_of(labels, 2)
    locating = [each for each in told if each.stage == "locate"]
    assert [each.done for each in locating] == list(range(8)), "the patches around the centre, and six points"
    slices = sorted(each.slice for each in told if each.stage == "segment")
    assert slices == list(range(slices[0], slices[-1] + 1)), "each slice is encoded once"
    assert abs(slices[0] - box[0, 2]) * spacing[2] <= 6
    assert abs(slices[-1] - box[1, 2]) * spacing[2] <= 6
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(found.data))
    assert image.shape == labels.shape
    assert np.allclose(image.affine, phantoms.affine_las(QUERY[2]), atol=1e-5)
    (kidney,) = found.objects
    shown = np.asarray(image.dataobj) == 1
    assert kidney.voxels == np.count_nonzero(shown)
    assert not shown[..., : slices[0]].any()
    assert not shown[..., slices[-1] + 1 :].any()


def located(scan, folder):
    """The one run of slices with its box that the phantom's net, in PyTorch, finds by the set `body`."""
    volume = volumes.read(EncodedVolume((scan,)), LimitSettings(), VolumeSettings())
    nets = {"position": phantoms.Position(), "refine": phantoms.QuickRefine()}

    def engine(part):
        order, (output,) = ("patch", *KERNELS), OUTPUTS[part]

        @torch.inference_mode()
        def run(given):
            values = (torch.from_numpy(np.ascontiguousarray(given[name])) for name in order if name in given)
            return {output: nets[part](*values).numpy()}

        return FakeEngine(specs(draft())[part], run)

    async def here(work):
        return work()

    async def go():
        request = Request(Lookup(ImageHandle("none")), Deadline.after(300), "r")
        locator = Locator(engine("position"), engine("refine"), here, request, Stages())
        kidney = support_sets.read(folder, "body").structures["kidney"]
        return await locator.find(*support_sets.prepared(volume), [kidney])

    (found,) = objects(asyncio.run(go()), volume.frame, 2)
    return found


def test_the_slices_go_to_the_model_that_the_build_named(served, supports, scan):
    asked = located(scan, supports)
    box = asked.shown.box
    with Client(served.http_url) as client:
        given = {"model": "medlsam-medsam", "window": HU, "output": "packed", "deadline_s": 300}
        found = client.segment_volume(scan, classes=["kidney"], supports="body", **given)
        for index in (asked.first, asked.last):
            picture = client.segment(scan, index=index, window=HU, boxes=[(box.x0, box.y0, box.x1, box.y1)], model="medsam")
            assert np.array_equal(found.masks[0][index], picture.masks[0].array)
    assert {"medsam_image_encoder/1", "medlsam_refine/1"} <= set(found.model.engines)
    assert [(each.first, each.last) for each in found.objects] == [(asked.first, asked.last)]
    assert found.masks[0].any()
