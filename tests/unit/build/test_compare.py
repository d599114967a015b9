"""When is a built engine near enough to its module?"""

import numpy as np
import pytest
import torch

from serving.build import export
from serving.errors import SetupError


class Plain(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Rounding(torch.nn.Module):
    """In float32 a thousandth of its value is rounding: x + 4096 keeps twelve bits behind the point."""

    def forward(self, x):
        return (x + 4096) - 4096


SAMPLE = [{"x": np.linspace(0.01, 0.1, 50, dtype=np.float32)}]


def compared(monkeypatch, module, answer):
    monkeypatch.setattr(export, "runner", lambda folder, backend: lambda given: [answer(given["x"])])
    part = export.Part(module, {"x": torch.zeros(50)}, {}, ("y",), "onnxruntime")
    return export.compare(part, None, SAMPLE)


def test_what_agrees_passes_and_says_how_far_it_is(monkeypatch):
    found = compared(monkeypatch, Plain(), lambda x: 2 * x + np.float32(1e-6))
    assert found["y_max_abs"] == pytest.approx(1e-6, rel=0.1)
    assert found["y_scale"] == pytest.approx(0.2)


def test_what_differs_is_refused(monkeypatch):
    with pytest.raises(SetupError, match=r"differs from PyTorch: y by 1\.0e-03"):
        compared(monkeypatch, Plain(), lambda x: 2 * x + np.float32(1e-3))


def test_rounding_that_pytorch_has_too_is_allowed(monkeypatch):
    found = compared(monkeypatch, Rounding(), lambda x: x)
    assert found["y_max_abs"] > export.TOLERANCE * found["y_scale"]
    assert found["y_from_f64"] <= found["y_f32_from_f64"]


def test_more_than_that_is_refused(monkeypatch):
    with pytest.raises(SetupError, match="differs from PyTorch"):
        compared(monkeypatch, Rounding(), lambda x: x + np.float32(1e-3))


def test_nothing_passes_as_not_a_number(monkeypatch):
    with pytest.raises(SetupError, match="differs from PyTorch"):
        compared(monkeypatch, Rounding(), lambda x: x * np.float32("nan"))
