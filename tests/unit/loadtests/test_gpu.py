"""What the measurement of a GPU rests on: fused attention equals the exported one, graphs travel without their weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from loadtests.gpu import items, lowered, nets, served, skeleton
from loadtests.gpu.report import Report


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return nets.sam_vit_b(small=True).image_encoder


@pytest.mark.parametrize("attention", ["padded", "narrow"])
def test_fused_attention_is_the_exported_one(encoder: torch.nn.Module, attention: str) -> None:
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = encoder(image)
    made = lowered.run(encoder, "f32", "cpu", attention=attention)(image)
    assert float((made - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("form", ["bf16", "bf16-strict"])
def test_a_lowered_network_is_near_and_not_equal(encoder: torch.nn.Module, form: str) -> None:
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = encoder(image)
    made = lowered.run(encoder, form, "cpu")(image)
    assert made.dtype == torch.float32
    assert 0 < float((made - wanted).abs().max()) <= 0.05 * float(wanted.abs().max())


def test_a_graph_comes_back_with_the_weights_it_left_behind() -> None:
    linear = torch.nn.Linear(64, 48)
    state = linear.state_dict()
    own = np.random.default_rng(0).random((48, 64), np.float32)
    kept = {"w": state["weight"].numpy(), "t": np.ascontiguousarray(state["weight"].numpy().T), "own": own}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kept]
    outputs = [helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, list(v.shape)) for name, v in kept.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, [numpy_helper.from_array(v, name) for name, v in kept.items()])
    whole = helper.make_model(graph)
    small = skeleton.stripped(whole, state)
    assert small.ByteSize() < whole.ByteSize() - 2 * own.nbytes + 1000
    back = skeleton.filled(small, state)
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in back.graph.initializer} == {
        name: value.tobytes() for name, value in kept.items()
    }


def test_the_gates_prompts_come_back(tmp_path: Path) -> None:
    tensor = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    one = items.Item(
        "ct", items.Given(tensor, (8, 6)), (80, 60), np.ones((1, 2, 2, 2), np.float32), np.ones((1, 2, 2), np.int64)
    )
    items.save([one], tmp_path / "gate.npz")
    (back,) = items.load(tmp_path / "gate.npz")
    assert (back.name, back.size_px, back.given.content_px) == ("ct", (80, 60), (8, 6))
    assert np.array_equal(back.given.tensor, tensor)


def test_a_section_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tmp_path / "out" / "found.json", budget_s=60)
    report.section("bad", lambda: 1 // 0)
    report.section("good", lambda: {"rate": 3})
    report.section("late", lambda: 1, least_s=1000)
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    assert found["bad"]["failed"].startswith("ZeroDivisionError")
    assert found["good"]["result"] == {"rate": 3}
    assert "skipped" in found["late"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_models_behind_triton_have_the_engines_tensors(tmp_path: Path) -> None:
    names = served.repository(tmp_path / "models", tmp_path, {"lite_decoder": "bf16"}, "cuda")
    text = (tmp_path / "models" / "lite_decoder" / "config.pbtxt").read_text()
    assert names == ["lite_decoder"]
    assert '{ name: "x0" data_type: TYPE_FP32 dims: [4096, 256] }' in text
    assert "KIND_GPU" in text
