"""BiomedCLIP's towers against transformers' ViT and BERT with the same seeded weights under open_clip's names."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from serving.build.nets import biomedclip
from serving.errors import SetupError
from tests.unit.build.seeded import apart, ids, pixels, stir

VOCABULARY, CONTEXT, WIDTH, OUT, SIDE = 60, 24, 128, 32, 64


def random(*shape, seed):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def vit():
    sizes = {"hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
    return stir(ViTModel(ViTConfig(**sizes, image_size=SIDE, patch_size=16, layer_norm_eps=1e-6), add_pooling_layer=False))


@pytest.fixture(scope="module")
def bert():
    sizes = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return stir(BertModel(BertConfig(**sizes, vocab_size=VOCABULARY, max_position_embeddings=CONTEXT), add_pooling_layer=False))


def timm_state(published):
    """transformers' published ViT names to timm's: q, k and v fused."""
    out = {
        "cls_token": published["embeddings.cls_token"],
        "pos_embed": published["embeddings.position_embeddings"],
        "patch_embed.proj.weight": published["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": published["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": published["layernorm.weight"],
        "norm.bias": published["layernorm.bias"],
    }
    for number in range(2):
        old, new = f"encoder.layer.{number}.", f"blocks.{number}."
        for kind in ("weight", "bias"):
            fused = [published[f"{old}attention.attention.{name}.{kind}"] for name in ("query", "key", "value")]
            out[f"{new}attn.qkv.{kind}"] = torch.cat(fused)
            for theirs, ours in (
                ("layernorm_before", "norm1"),
                ("layernorm_after", "norm2"),
                ("attention.output.dense", "attn.proj"),
                ("intermediate.dense", "mlp.fc1"),
                ("output.dense", "mlp.fc2"),
            ):
                out[f"{new}{ours}.{kind}"] = published[f"{old}{theirs}.{kind}"]
    return out


@pytest.fixture(scope="module")
def state(vit, bert, tmp_path_factory):
    folders = tmp_path_factory.mktemp("vit"), tmp_path_factory.mktemp("bert")
    for model, folder in zip((vit, bert), folders, strict=True):
        model.save_pretrained(folder)
    image, text = (load_file(folder / "model.safetensors") for folder in folders)
    return {
        **{f"visual.trunk.{key}": value for key, value in timm_state(image).items()},
        **{f"text.transformer.{key}": value for key, value in text.items()},
        "text.transformer.embeddings.position_ids": torch.arange(CONTEXT)[None],
        "visual.head.proj.weight": random(OUT, WIDTH, seed=1),
        "text.proj.0.weight": random(80, WIDTH, seed=2),
        "text.proj.2.weight": random(OUT, 80, seed=3),
        "logit_scale": torch.tensor(4.4),
    }


@torch.inference_mode()
def test_the_image_tower(vit, state):
    model = biomedclip.load(state)
    wanted = vit(pixels(2, SIDE)).last_hidden_state[:, 0] @ state["visual.head.proj.weight"].T
    assert apart(model.image_encoder(pixels(2, SIDE)), wanted) <= 1e-5
    assert (model.image_size, model.embed_dim) == (SIDE, OUT)
    assert model.scale == pytest.approx(torch.tensor(4.4).exp())


@torch.inference_mode()
def test_the_text_tower(bert, state):
    model, tokens = biomedclip.load(state), ids(3, 12, VOCABULARY, (12, 7, 4))
    first = bert(tokens, attention_mask=(tokens != 0).long()).last_hidden_state[:, 0]
    wanted = F.gelu(first @ state["text.proj.0.weight"].T) @ state["text.proj.2.weight"].T
    assert apart(model.text_encoder(tokens), wanted) <= 1e-5


@torch.inference_mode()
def test_cutting_padding_off_changes_nothing(state):
    model, tokens = biomedclip.load(state), ids(2, CONTEXT, VOCABULARY, (7, 4))
    whole = model.text_encoder(tokens)
    assert apart(model.text_encoder(tokens[:, :7]), whole) <= 1e-5
    assert apart(model.text_encoder(tokens[:, :6]), whole) > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"visual.head.proj.weight": torch.zeros(OUT, 7)}, r"visual\.head\.proj\.weight has shape \(32, 7\), not \(32, 128\)"),
        ({"visual.proj": torch.zeros(1)}, r"visual\.proj is unexpected"),
        ({"text.proj.2.weight": None}, r"no tensor named text\.proj\.2\.weight"),
        ({"text.transformer.encoder.layer.0.output.dense.bias": None}, r"layer\.0\.output\.dense\.bias is missing"),
        ({"extra": torch.zeros(1)}, "extra is unexpected"),
        ({"logit_scale": torch.zeros(2)}, r"logit_scale has shape \(2,\)"),
    ],
)
def test_another_checkpoint_is_refused_with_what_differs(state, change, said):
    changed = {key: value for key, value in {**state, **change}.items() if value is not None}
    with pytest.raises(SetupError, match=said):
        biomedclip.load(changed)
