"""CLIP's towers against Hugging Face's CLIPModel with the same seeded weights, and what a wrong checkpoint says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from serving.build.nets.clip import Clip, ClipConfig, create, from_hugging_face, is_hugging_face, load
from serving.errors import SetupError

VOCABULARY, CONTEXT, SIZE = 100, 12, 32


@pytest.fixture(scope="module")
def reference() -> CLIPModel:
    text = {"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": CONTEXT, "eos_token_id": VOCABULARY - 1, "pad_token_id": 0}
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 3}
    vision |= {"image_size": SIZE, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.05 if parameter.ndim > 1 else 0.2
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def clip(reference: CLIPModel) -> Clip:
    assert is_hugging_face(reference.state_dict())
    converted = from_hugging_face(reference.state_dict())
    assert not is_hugging_face(converted)
    return load(converted)


def texts(rows: int = 4) -> torch.Tensor:
    ids = torch.randint(1, VOCABULARY - 1, (rows, CONTEXT), generator=torch.Generator().manual_seed(3))
    for row in range(rows):
        ids[row, 5 + row] = VOCABULARY - 1
        ids[row, 6 + row :] = 0
    return ids


def pixels(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


@torch.inference_mode()
def test_both_towers_equal_the_reference(reference: CLIPModel, clip: Clip) -> None:
    image = reference.visual_projection(reference.vision_model(pixels()).pooler_output)
    text = reference.text_projection(reference.text_model(texts()).pooler_output)
    assert image.std() > 0.1
    assert text.std() > 0.1
    assert (clip.image_encoder(pixels()) - image).abs().max() <= 1e-5
    assert (clip.text_encoder(texts()) - text).abs().max() <= 1e-5
    assert clip.scale == pytest.approx(float(reference.logit_scale.exp()))


@torch.inference_mode()
def test_cutting_padding_off_changes_nothing(clip: Clip) -> None:
    whole = clip.text_encoder(texts())
    assert (clip.text_encoder(texts()[:, :9]) - whole).abs().max() <= 5e-6
    assert (clip.text_encoder(texts()[:, :6]) - whole).abs().max() > 1e-3


def test_a_state_dict_goes_round(clip: Clip) -> None:
    again = load({**clip.state_dict(), "input_resolution": torch.tensor(SIZE)})
    assert again.config == clip.config
    assert torch.equal(again.image_encoder(pixels()), clip.image_encoder(pixels()))


def test_a_wrong_shape_a_missing_and_an_unexpected_tensor_are_named(clip: Clip) -> None:
    sd = clip.state_dict()
    with pytest.raises(SetupError, match=r"visual\.proj has shape \(5, 5\), not \(192, 64\)"):
        load({**sd, "visual.proj": torch.zeros(5, 5)})
    with pytest.raises(SetupError, match=r"extra is unexpected"):
        load({**sd, "extra": torch.zeros(1)})
    with pytest.raises(SetupError, match=r"ln_final\.bias is missing"):
        load({key: value for key, value in sd.items() if key != "ln_final.bias"})
    with pytest.raises(SetupError, match="has no tensor named"):
        load({})
    with pytest.raises(SetupError, match="ResNet"):
        load({"visual.layer1.0.conv1.weight": torch.zeros(1)})


def test_heads_can_be_given_for_small_widths(clip: Clip) -> None:
    other = load(clip.state_dict(), vision_heads=6)
    assert other.config.vision_heads == 6
    assert (other.image_encoder(pixels()) - clip.image_encoder(pixels())).abs().max() > 1e-4


def test_new_towers_differ_from_seed_to_seed(clip: Clip) -> None:
    torch.manual_seed(0)
    first, second = create(clip.config), create(clip.config)
    assert not torch.equal(first.state_dict()["visual.proj"], second.state_dict()["visual.proj"])


@pytest.mark.parametrize("tower", ["image", "text"])
def test_exports_with_a_dynamic_batch_and_length(clip: Clip, tower: str, tmp_path: Path) -> None:
    import onnxruntime

    module, example = (clip.image_encoder, pixels(2)) if tower == "image" else (clip.text_encoder, texts(2))
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {0: batch} if tower == "image" else {0: batch, 1: torch.export.Dim("length", min=2, max=CONTEXT)}
    path = tmp_path / "tower.onnx"
    torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=(shapes,), input_names=["x"], verbose=False)
    session = onnxruntime.InferenceSession(path)
    other = pixels(5) if tower == "image" else texts(4)[:, :10]
    (got,) = session.run(None, {"x": other.numpy()})
    with torch.inference_mode():
        assert np.abs(got - module(other).numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "patch", "side", "width", "layers", "text_width", "embed"),
    [
        ("ViT-B/32", 32, 224, 768, 12, 512, 512),
        ("ViT-B/16", 16, 224, 768, 12, 512, 512),
        ("ViT-L/14", 14, 224, 1024, 24, 768, 768),
        ("ViT-L/14@336px", 14, 336, 1024, 24, 768, 768),
    ],
)
def test_published_sizes_are_told_from_the_shapes(
    name: str, patch: int, side: int, width: int, layers: int, text_width: int, embed: int
) -> None:
    shapes = {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.positional_embedding": ((side // patch) ** 2 + 1, width),
        "positional_embedding": (77, text_width),
        "token_embedding.weight": (49408, text_width),
        "text_projection": (text_width, embed),
        **{f"visual.transformer.resblocks.{n}.ln_1.bias": (width,) for n in range(layers)},
        **{f"transformer.resblocks.{n}.ln_1.bias": (text_width,) for n in range(12)},
    }
    found = ClipConfig.from_state_dict({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    assert (found.image_size, found.patch, found.vision_layers, found.embed_dim) == (side, patch, layers, embed), name
    assert (found.vision_heads, found.text_heads, found.text_layers) == (width // 64, text_width // 64, 12)
    assert (found.context_length, found.vocab_size) == (77, 49408)
