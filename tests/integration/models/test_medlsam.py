"""Structures by name over the running server: a phantom's support set made by the command, planted engines, real slices."""

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
from serving.families.medlsam.engines import KERNELS, specs
from serving.manifest import EngineRecord, Manifest
from serving.settings import load

pytestmark = pytest.mark.integration
OUTPUTS = {"position": ("position",), "describe": ("position", *KERNELS), "refine": ("similarity",)}


def planted(repository):
    """The phantom's net as three built engines and their record."""
    patch = torch.rand(1, 1, 64, 64, 64)
    kernels = {name: torch.rand(1, phantoms.CHANNELS, side, side, side) for name, side in KERNELS.items()}
    draft = Manifest(
        model="medlsam", family="medlsam", pool="adaptive", digest="p" * 64, source="planted", licence="",
        engines={}, options={"channels": phantoms.CHANNELS, "segmenter": ""},
    )  # fmt: skip
    records = {}
    for name, spec in specs(draft).items():
        batched = name == "position"
        inputs = {"patch": patch.repeat(2, 1, 1, 1, 1) if batched else patch, **(kernels if name == "refine" else {})}
        part = Part(phantoms.PARTS[name](), inputs, {"patch": {0: "b"}} if batched else {}, OUTPUTS[name], "onnxruntime")
        folder = repository / spec.name
        (folder / "1").mkdir(parents=True)
        export.to_onnx(part, folder / "1" / "model.onnx")
        config.write(folder, spec, "onnxruntime")
        records[name] = (EngineRecord(name=spec.name, digest=name),)
    draft.model_copy(update={"engines": records}).write(repository)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """LiteMedSAM as it is built here, and the planted MedLSAM beside it."""
    folder, built = tmp_path_factory.mktemp("repository"), load().repository.path
    for path in built.glob("litemedsam*"):
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


def test_structures_are_found_and_segmented_by_name(repository, supports):
    values, labels = phantoms.body(*QUERY)
    affine, spacing = phantoms.affine_las(QUERY[2]), np.array(QUERY[2])
    settings = {"MEDSERVE_REPOSITORY__PATH": str(repository), "MEDSERVE_VOLUMES__SUPPORTS": str(supports)}
    with Medserve(**settings) as server, Client(server.http_url) as client, GrpcClient(server.grpc_address) as grpc:
        said = {model.name: model for model in client.models()}
        assert list(said["medlsam"].prompts) == ["classes"]
        told = []
        scan = phantoms.nifti(values, affine)
        found = grpc.segment_volume(scan, classes=["kidney"], supports="body", progress=told.append, deadline_s=300)
        for front in (client, grpc):
            with pytest.raises(MedserveError, match="there are: body") as caught:
                front.segment_volume(scan, classes=["kidney"], supports="other")
            assert caught.value.code == "invalid"
            assert str(supports) not in caught.value.message
            with pytest.raises(MedserveError, match="it shows: kidney") as caught:
                front.segment_volume(scan, classes=["spleen"], supports="body")
            assert caught.value.code == "invalid"
    assert found.model.name == "medlsam"
    box = phantoms.box_of(labels, 2)
    slices = sorted(each.slice for each in told)
    assert slices == list(range(slices[0], slices[-1] + 1)), "each slice is encoded once"
    assert abs(slices[0] - box[0, 2]) * spacing[2] <= 6
    assert abs(slices[-1] - box[1, 2]) * spacing[2] <= 6
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(found.data))
    assert image.shape == labels.shape
    assert np.allclose(image.affine, affine, atol=1e-5)
    (kidney,) = found.objects
    shown = np.asarray(image.dataobj) == 1
    assert kidney.voxels == np.count_nonzero(shown)
    assert not shown[..., : slices[0]].any()
    assert not shown[..., slices[-1] + 1 :].any()
