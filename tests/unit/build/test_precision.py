from functools import partial

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import opset13 as ops

from serving.build import export, gate, gate_set, precision, recipes, weights
from serving.build.catalogue import find
from serving.build.gate import Verdict
from serving.build.recipes import Choices
from serving.errors import SetupError

SAMPLES = [{"x": np.ones((1, 4), np.float32)}]


@pytest.fixture
def folder(tmp_path):
    """An engine that doubles its input."""
    x = ops.parameter([-1, 4], np.float32, "x")
    x.output(0).set_names({"x"})
    y = ops.multiply(x, np.float32(2))
    y.output(0).set_names({"y"})
    at = tmp_path / "doubler" / "1"
    at.mkdir(parents=True)
    ov.save_model(ov.Model([y], [x], "doubler"), at / "model.xml")
    return at


def scaled(factor):
    """A candidate whose graph multiplies by another factor."""

    def make(model, samples):
        x = ops.parameter([-1, 4], np.float32, "x")
        x.output(0).set_names({"x"})
        y = ops.multiply(x, np.float32(factor))
        y.output(0).set_names({"y"})
        return ov.Model([y], [x], "scaled")

    return precision.Candidate(f"times {factor}", precision.BF16, make=make)


def judged(candidate, engine):
    """Passes where the engine doubles, within a tenth."""
    error = float(np.abs(engine(SAMPLES[0])["y"] - 2).max())
    return Verdict("mask_iou", {"mean": 1 - error}, error < 0.1)


@pytest.fixture
def choose(folder, monkeypatch):
    monkeypatch.setattr(precision, "_gain", lambda exact, engine, sample: 2.0)
    return partial(precision._choose, folder, judge=judged, samples=SAMPLES, say=lambda text: None, has=frozenset({"bf16"}))


def test_the_first_candidate_that_passes_is_deployed_and_what_failed_is_told(choose, folder):
    choice = choose([scaled(3.0), scaled(2.05), scaled(2.0)])
    assert choice.precision == "times 2.05"
    assert choice.gate["passed"]
    assert choice.gate["faster"] == 2.0
    assert choice.gate["dropped"] == {"times 3.0": {"why": "its answers differ from float32's", "mean": 0.0}}
    np.testing.assert_allclose(precision.open_openvino(folder)(SAMPLES[0])["y"], 2.05)


def test_f32_is_left_where_nothing_passes(choose, folder):
    choice = choose([scaled(3.0)])
    assert choice.precision == "f32"
    assert list(choice.gate["dropped"]) == ["times 3.0"]
    assert choice.gate["passed"]
    np.testing.assert_array_equal(precision.open_openvino(folder)(SAMPLES[0])["y"], 2)


def test_a_candidate_that_gains_nothing_is_not_deployed(choose, monkeypatch):
    monkeypatch.setattr(precision, "_gain", lambda exact, engine, sample: 1.0)
    choice = choose([scaled(2.0)])
    assert choice.precision == "f32"
    assert choice.gate["dropped"]["times 2.0"]["why"] == "it is not faster here"


def test_a_candidate_that_the_processor_cannot_run_is_not_tried(choose):
    choice = choose([scaled(3.0), scaled(2.0)], has=frozenset())
    assert choice.precision == "f32"
    assert choice.gate["dropped"] == {name: {"why": "this processor has no bf16"} for name in ("times 3.0", "times 2.0")}


def test_float32_that_fails_its_own_gate_stops_the_build(choose):
    with pytest.raises(SetupError, match="doubler"):
        choose([], judge=lambda candidate, engine: Verdict("mask_iou", {}, False))


def test_the_hint_is_written_beside_the_engine_and_taken_away_again(choose, folder):
    hinted = precision.Candidate("bf16", precision.BF16, "bf16")
    choose([hinted])
    assert (folder / "precision").read_text() == "bf16\n"
    choose([])
    assert not (folder / "precision").exists()


def _rounded(value):
    return value.to(torch.bfloat16).float()


def _bf16_throughout(model):
    """Every product's input, weights and output rounded to bfloat16, as a processor that has it computes."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.weight.data = _rounded(module.weight.data)
            module.register_forward_pre_hook(lambda _, given: (_rounded(given[0]),))
            module.register_forward_hook(lambda _, given, made: _rounded(made))


@pytest.mark.integration
def test_litemedsam_in_bf16_throughout_fails_the_gate(tmp_path):
    """With the trained weights and real images; random weights made it look harmless."""
    kept = weights.pull(find("litemedsam"), tmp_path, say=lambda text: None)
    made = recipes.of("litemedsam").parts(weights.read(kept.path), Choices(find("litemedsam"))).parts
    encode, decode = (_engine(made[name]) for name in ("image_encoder", "mask_decoder"))
    found = gate_set.items()[:4]
    inputs = [{"image": item.given.tensor} for item in found]
    wanted = [gate.masks(item, encode(given), decode) for item, given in zip(found, inputs, strict=True)]
    _bf16_throughout(made["image_encoder"].module)
    lowered = (gate.masks(item, encode(given), decode) for item, given in zip(found, inputs, strict=True))
    verdict = gate.compare(wanted, lowered)
    assert not verdict.passed
    assert verdict.numbers["min"] < gate.IOU_LEAST


def _engine(part: export.Part):
    def run(inputs):
        with torch.inference_mode():
            made = part.module.eval()(*(torch.from_numpy(inputs[name]) for name in part.inputs))
        return dict(zip(part.outputs, (value.numpy() for value in made), strict=True))

    return run
