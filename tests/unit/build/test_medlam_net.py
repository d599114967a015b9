"""MedLAM's network against upstream's order of operations, written out here, and its engines against the network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from medlam import small_medlam

from serving.build import export
from serving.build.catalogue import ENTRIES
from serving.build.nets import medlam
from serving.build.recipes import Choices
from serving.build.recipes.medlsam import parts
from serving.errors import SetupError

PUBLISHED = {
    "conv0_1.model.conv1_1.Conv.weight": (48, 1, 3, 3, 3),
    "conv2_2.model.conv1_1.Conv.bias": (96,),
    "conv4_2.model.conv1_1.Conv.weight": (384, 192, 3, 3, 3),
    "conv5_1.model.conv1_1.Conv.weight": (192, 576, 3, 3, 3),
    "conv6_1.model.conv1_1.Conv.weight": (96, 288, 3, 3, 3),
    "conv8_1.model.conv1_1.Conv.weight": (96, 144, 3, 3, 3),
    "conv8_2.model.conv1_1.Conv.weight": (96, 96, 3, 3, 3),
    "classification.0.weight": (3, 96, 1, 1, 1),
    "fc1.weight": (192, 24576),
    "fc2.weight": (96, 192),
    "fc3.weight": (3, 96),
}


def test_the_published_names_and_shapes():
    with torch.device("meta"):
        state = medlam.MedLam(24, 3).state_dict()
    assert {key: tuple(state[key].shape) for key in PUBLISHED} == PUBLISHED
    assert len(state) == 2 * (18 + 1 + 3)


def upstream(state, x):
    """`MedLAM.forward` on a state dict: fc_position, and feature0, 1, 2 before they are normalised."""

    def step(name, x):
        made = F.conv3d(x, state[f"{name}.model.conv1_1.Conv.weight"], state[f"{name}.model.conv1_1.Conv.bias"], padding=1)
        mean, var = made.mean((2, 3, 4), keepdim=True), made.var((2, 3, 4), keepdim=True, unbiased=False)
        return ((made - mean) / (var + 1e-5).sqrt()).clamp(min=0)

    def pair(n, x):
        return step(f"conv{n}_2", step(f"conv{n}_1", x))

    def larger(x):
        return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)

    conv0 = pair(0, x)
    conv1 = pair(1, F.max_pool3d(conv0, 2, 2))
    conv2 = pair(2, F.max_pool3d(conv1, 2, 2))
    conv3 = pair(3, F.max_pool3d(conv2, 2, 2))
    bottom = pair(4, F.max_pool3d(conv3, 2, 2))
    fc = bottom.view(bottom.shape[0], -1)
    for n in (1, 2, 3):
        fc = fc @ state[f"fc{n}.weight"].T + state[f"fc{n}.bias"]
    out = pair(5, torch.cat((larger(bottom), conv3), 1))
    features = []
    for n, skip in ((6, conv2), (7, conv1), (8, conv0)):
        out = pair(n, torch.cat((larger(out), skip), 1))
        features.append(out)
    return fc, features


@pytest.fixture(scope="module")
def state():
    return small_medlam()


@pytest.fixture(scope="module")
def patches():
    return torch.rand(2, 1, 64, 64, 64, generator=torch.Generator().manual_seed(2))


def plain(state):
    return {key.removeprefix("module."): value for key, value in state.items()}


@torch.inference_mode()
def test_positions_and_features_are_upstream_s(state, patches):
    wanted, features = upstream(plain(state), patches)
    model = medlam.load(state)
    assert apart(medlam.Position(model)(patches), wanted) <= 1e-5
    position, *kernels = medlam.Describe(model)(patches)
    assert apart(position, wanted) <= 1e-5
    for kernel, feature, reach in zip(kernels, features, (1, 2, 4), strict=True):
        middle = feature.shape[-1] // 2
        span = slice(middle - reach, middle + reach)
        assert apart(kernel, feature[:, :, span, span, span]) <= 1e-5


def apart(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.inference_mode()
def test_the_refinement_is_the_grouped_convolution_s(state, patches):
    """`cal_RD_with_feature` on two points at once; its convolution has a bias, which moves no maximum."""
    model = medlam.load(state)
    kernels = [F.normalize(each, dim=1) for each in medlam.Describe(model)(patches.flip(0))[1:]]
    _, features = upstream(plain(state), patches)
    total = torch.ones(2, 64, 64, 64)
    for feature, kernel in zip(features, kernels, strict=True):
        width = kernel.shape[-1]
        joined = F.normalize(feature, dim=1).reshape(1, -1, *feature.shape[2:])
        alike = F.conv3d(joined, kernel, torch.tensor([0.2, -0.1]), padding=width // 2, groups=2) / width**3
        total += F.interpolate(alike, size=(64, 64, 64), mode="trilinear")[0]
    for n in range(2):
        found = medlam.Refine(model)(patches[n : n + 1], *(kernel[n : n + 1] for kernel in kernels))[0]
        best = float(total[n].flatten()[found.argmax()])
        assert best >= float(total[n].max()) - 1e-4
        shift = total[n] - found
        assert float(shift.max() - shift.min()) <= 1e-4


def test_the_engines_are_the_network_s(state, tmp_path):
    """`compare` refuses what is further off than 1e-4 of an output's scale."""
    made = parts(state, Choices(ENTRIES["medlsam"], options={"segmenter": "litemedsam"}))
    assert made.options == {"channels": 8, "segmenter": "litemedsam"}
    for name, part in made.parts.items():
        (tmp_path / name).mkdir()
        export.to_onnx(part, tmp_path / name / "model.onnx")
        found = export.compare(part, tmp_path / name, made.samples[name])
        assert set(found) == {f"{output}_{kind}" for output in part.outputs for kind in ("max_abs", "scale")}


def test_half_precision_and_the_wrapper_load_alike(state):
    plain = {key.removeprefix("module."): value.half() for key, value in state.items()}
    found = medlam.load(plain).state_dict()
    assert all(value.dtype == torch.float32 for value in found.values())
    assert np.allclose(found["fc3.weight"], state["module.fc3.weight"], atol=1e-3)


def test_another_model_is_refused_with_the_names_that_differ(state):
    with pytest.raises(SetupError, match="has no tensor named conv0_1"):
        medlam.load({"image_encoder.pos_embed": torch.zeros(1)})
    with pytest.raises(SetupError, match="fc2"):
        medlam.load({**state, "module.fc2.weight": torch.zeros(5, 16)})
