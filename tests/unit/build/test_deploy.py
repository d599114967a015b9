"""Parts in their place with a record and a self-check each, or nothing at all."""

import numpy as np
import pytest
import torch
from torch import nn

from serving.build import deploy, precision
from serving.build.export import Part
from serving.build.gate import Verdict
from serving.build.parts import Parts
from serving.build.precision import Choice
from serving.engines import selfcheck
from serving.engines.engine import EngineSpec, TensorSpec
from serving.errors import SetupError

IMAGE = TensorSpec("image", "float32", (3, 8, 8))
X0 = TensorSpec("x0", "float32", (4,))
POINTS = TensorSpec("points", "float32", (-1, -1, 2))
SPECS = {
    "decoder": EngineSpec("m_decoder", (POINTS,), (TensorSpec("mask", "float32", (-1,)),), reads=(X0,)),
    "encoder": EngineSpec("m_encoder", (IMAGE,), (), writes=(X0,)),
}


class Encode(nn.Module):
    def forward(self, image):
        return image.mean(dim=(1, 2))[:, :4]


class Decode(nn.Module):
    def forward(self, x0, points):
        return points.sum(dim=(2, 3)) * x0.sum()


def parts():
    images, points = torch.rand(2, 3, 8, 8), torch.rand(1, 2, 2, 2)
    made = {
        "encoder": Part(Encode(), {"image": images}, {"image": {0: "b"}}, ("x0",), "openvino"),
        "decoder": Part(Decode(), {"x0": torch.rand(1, 4), "points": points}, {"points": {1: "p"}}, ("mask",), "onnxruntime"),
    }
    samples = {name: [{key: value[:1].numpy() for key, value in part.inputs.items()}] for name, part in made.items()}
    return Parts(made, samples, {})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The repository and the records of a build whose encoder passed at a lower precision."""
    repository = tmp_path_factory.mktemp("repository")
    verdict = Verdict("mask_iou", {"mean": 0.999}, True)
    choice = Choice("bf16-late", {**verdict.record(), "dropped": {}}, verdict)
    return repository, deploy.deploy(parts(), SPECS, repository, "1", lambda folders: {"encoder": choice}, print)


def test_a_gate_s_choice_is_in_the_record_and_the_others_passed_by_parity(built):
    repository, records = built
    assert records["encoder"].precision == "bf16-late"
    assert records["encoder"].gate["mean"] == 0.999
    assert (records["decoder"].precision, records["decoder"].gate) == ("f32", deploy.PARITY)
    for part, record in records.items():
        assert record.name == SPECS[part].name
        assert record.parity
        assert (repository / record.name / "1" / selfcheck.FILE).stat().st_size < 16_384
        assert (repository / record.name / "configs" / "cpu.pbtxt").exists()
    assert not list(repository.glob(".build-*"))


def test_a_file_for_the_cpu_of_what_writes_features_takes_one_image_and_the_graph_any(built):
    folder = built[0] / "m_encoder" / "1"
    images = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    one = precision.open_openvino(folder)
    apart = [one({"image": image[None]})["x0"] for image in images]
    with pytest.raises(RuntimeError, match="shape"):
        one({"image": images})
    np.testing.assert_allclose(precision.open_onnx(folder)({"image": images})["x0"], np.concatenate(apart), rtol=1e-6)


def test_what_is_stored_is_what_the_engines_answer_one_behind_the_other(built):
    encoder, decoder = (built[0] / name / "1" for name in ("m_encoder", "m_decoder"))
    inputs, stored = selfcheck.load(encoder / selfcheck.FILE)
    features = precision.open_openvino(encoder)(inputs)
    assert selfcheck.matches(stored, features)
    inputs, stored = selfcheck.load(decoder / selfcheck.FILE)
    assert inputs.keys() == {"points"}
    found = precision.open_onnx(decoder)({**inputs, **features})
    assert selfcheck.matches(stored, found)
    assert not selfcheck.matches(stored, {"mask": np.asarray(found["mask"]) * 1.5})


def test_a_gate_that_is_failed_leaves_what_was_there(tmp_path, monkeypatch):
    def fails(folders):
        raise SetupError("engine m_encoder fails its precision gate")

    monkeypatch.setattr(deploy, "_export", lambda *given, **more: {})
    before = tmp_path / "m_encoder" / "1" / "model.xml"
    before.parent.mkdir(parents=True)
    before.write_text("the one before")
    with pytest.raises(SetupError, match="m_encoder"):
        deploy.deploy(parts(), SPECS, tmp_path, "1", fails, print)
    assert before.read_text() == "the one before"
    assert [path.name for path in tmp_path.iterdir()] == ["m_encoder"]


def test_engines_that_take_what_is_unknown_here_get_no_self_check(tmp_path):
    strange = EngineSpec("m_encoder", (TensorSpec("volume", "float32", (3, 8, 8)),), (), writes=(X0,))
    deploy._store_selfchecks({**SPECS, "encoder": strange}, dict.fromkeys(SPECS, tmp_path))
    assert not list(tmp_path.iterdir())
