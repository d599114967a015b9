"""MedCLIP's towers against transformers' Swin, ResNet and BERT with the same seeded weights, and the layouts that load."""

import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel, SwinConfig, SwinModel

from serving.build.nets import medclip
from serving.errors import SetupError
from tests.unit.build.seeded import apart, ids, pixels, stir

VOCABULARY, CONTEXT, WIDTH, OUT, SIDE = 60, 24, 64, 32, 112


def random(*shape, seed):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(model, folder):
    """The state dict as `save_pretrained` publishes it."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def bert():
    sizes = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 1}
    return stir(BertModel(BertConfig(**sizes, intermediate_size=96, max_position_embeddings=CONTEXT)))


@pytest.fixture(scope="module")
def swin():
    sizes = {"image_size": SIDE, "embed_dim": 16, "depths": [2, 3, 2], "num_heads": [1, 2, 4], "window_size": 7}
    return stir(SwinModel(SwinConfig(**sizes)))


@pytest.fixture(scope="module")
def text_state(bert, tmp_path_factory):
    published = saved(bert, tmp_path_factory.mktemp("bert"))
    state = {f"text_model.model.{key}": value for key, value in published.items()}
    return {**state, "text_model.projection_head.weight": random(OUT, WIDTH, seed=1), "logit_scale": torch.tensor(2.5)}


@pytest.fixture(scope="module")
def swin_state(swin, text_state, tmp_path_factory):
    published = saved(swin, tmp_path_factory.mktemp("swin"))
    assert "encoder.layers.0.blocks.0.attention.self.query.weight" in published, "the layout of published checkpoints"
    state = {f"vision_model.model.{key}": value for key, value in published.items()}
    return {**text_state, **state, "vision_model.projection_head.weight": random(OUT, 64, seed=2)}


@pytest.fixture(scope="module")
def resnet():
    sizes = {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 3, 1], "layer_type": "bottleneck"}
    return stir(ResNetModel(ResNetConfig(**sizes, downsample_in_bottleneck=False)), spread=0.02)


def torchvision_name(key):
    """transformers' ResNet names to torchvision's."""
    key = re.sub(r"^embedder\.embedder\.convolution", "conv1", key)
    key = re.sub(r"^embedder\.embedder\.normalization", "bn1", key)
    key = re.sub(r"^encoder\.stages\.(\d)\.layers\.(\d)", lambda m: f"layer{int(m[1]) + 1}.{m[2]}", key)
    key = re.sub(r"\.layer\.(\d)\.convolution", lambda m: f".conv{int(m[1]) + 1}", key)
    key = re.sub(r"\.layer\.(\d)\.normalization", lambda m: f".bn{int(m[1]) + 1}", key)
    return key.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")


@pytest.fixture(scope="module")
def resnet_state(resnet, text_state):
    state = {f"vision_model.model.{torchvision_name(key)}": value for key, value in resnet.state_dict().items()}
    return {**text_state, **state, "vision_model.model.fc.weight": random(OUT, 256, seed=3)}


@torch.inference_mode()
def test_the_swin_tower(swin, swin_state):
    tower = medclip.load(swin_state, SIDE).image_encoder
    wanted = swin(pixels(2, SIDE)).pooler_output @ swin_state["vision_model.projection_head.weight"].T
    assert apart(tower(pixels(2, SIDE)), wanted) <= 1e-5


@torch.inference_mode()
def test_the_resnet_tower(resnet, resnet_state):
    tower = medclip.load(resnet_state).image_encoder
    wanted = resnet(pixels(2, 64)).pooler_output.flatten(1) @ resnet_state["vision_model.model.fc.weight"].T
    assert apart(tower(pixels(2, 64)), wanted) <= 1e-5


@torch.inference_mode()
def test_text_is_read_as_published_with_the_padding(bert, swin_state):
    model = medclip.load(swin_state, SIDE)
    tokens = ids(3, 12, VOCABULARY, (12, 7, 4))
    hidden = bert(tokens, attention_mask=(tokens != 0).long(), output_hidden_states=True).hidden_states
    pooled = torch.stack([hidden[1], hidden[2], hidden[-1]]).permute(1, 0, 2, 3).mean(2).mean(1)
    wanted = pooled @ swin_state["text_model.projection_head.weight"].T
    assert apart(model.text_encoder(tokens), wanted) <= 1e-5
    shorter = model.text_encoder(tokens[2:, :6])
    assert apart(shorter, wanted[2:]) > 1e-3, "how far a text was padded is part of what it is"
    assert model.scale == pytest.approx(torch.tensor(2.5).exp())


def test_the_temperature_is_clamped(swin_state):
    assert medclip.load({**swin_state, "logit_scale": torch.tensor(9.0)}, SIDE).scale == pytest.approx(100.0, abs=0.01)
    assert medclip.load({**swin_state, "logit_scale": torch.tensor(-1.0)}, SIDE).scale == 1.0


@torch.inference_mode()
def test_the_layout_of_newer_libraries_gives_the_same(swin, swin_state):
    newer = {key: value for key, value in swin_state.items() if not key.startswith("vision_model.model.")}
    newer |= {f"vision_model.model.{key}": value for key, value in swin.state_dict().items()}
    assert any(".attention.q_proj." in key for key in newer)
    older = {**swin_state, "text_model.model.embeddings.position_ids": torch.arange(CONTEXT)[None]}
    older["vision_model.model.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(49, 49)
    wanted = medclip.load(swin_state, SIDE).image_encoder(pixels(1, SIDE))
    for state in (newer, older):
        assert torch.equal(medclip.load(state, SIDE).image_encoder(pixels(1, SIDE)), wanted)


def test_published_keys_are_there(swin_state, resnet_state):
    for key in (
        "vision_model.model.embeddings.patch_embeddings.projection.weight",
        "vision_model.model.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",
        "vision_model.model.encoder.layers.0.downsample.reduction.weight",
        "vision_model.projection_head.weight",
        "text_model.model.embeddings.word_embeddings.weight",
        "text_model.model.encoder.layer.0.attention.output.LayerNorm.weight",
        "text_model.model.pooler.dense.weight",
        "text_model.projection_head.weight",
        "logit_scale",
    ):
        assert key in swin_state
    for key in ("conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.0.conv3.weight", "fc.weight"):
        assert f"vision_model.model.{key}" in resnet_state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"vision_model.projection_head.weight": torch.zeros(5, 5)},
            r"projection_head\.weight has shape \(5, 5\), not \(5, 64\)",
        ),
        ({"text_model.projection_head.bias": torch.zeros(OUT)}, r"text_model\.projection_head\.bias is unexpected"),
        ({"logit_scale": None}, "no tensor named logit_scale"),
        ({"text_model.model.encoder.layer.1.output.dense.bias": None}, r"layer\.1\.output\.dense\.bias is missing"),
        ({"vision_model.model.layernorm.weight": None}, r"vision_model\.model\.layernorm\.weight is missing"),
        ({"visual.proj": torch.zeros(2)}, r"visual\.proj is unexpected"),
    ],
)
def test_another_checkpoint_is_refused_with_what_differs(swin_state, change, said):
    state = {key: value for key, value in {**swin_state, **change}.items() if value is not None}
    with pytest.raises(SetupError, match=said):
        medclip.load(state, SIDE)


def test_a_clip_checkpoint_is_not_medclip():
    with pytest.raises(SetupError, match="not a MedCLIP checkpoint"):
        medclip.load({"visual.conv1.weight": torch.zeros(1), "logit_scale": torch.zeros(())})
