"""SigLIP's towers against transformers' SiglipModel with the same seeded weights, and what a wrong checkpoint says."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipConfig, SiglipModel

from serving.build.nets import siglip
from serving.errors import SetupError
from tests.unit.build.seeded import apart, pixels, stir

VOCABULARY, CONTEXT, SIDE = 50, 16, 56


@pytest.fixture(scope="module")
def reference():
    text = {"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 172, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": CONTEXT, "projection_size": 128}
    vision = {"hidden_size": 128, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": SIDE, "patch_size": 14}
    return stir(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)))


@pytest.fixture(scope="module")
def state(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    reference.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def tokens(rows=3):
    made = torch.randint(2, VOCABULARY, (rows, CONTEXT), generator=torch.Generator().manual_seed(3))
    for row in range(rows):
        made[row, 5 + row :] = 1
    return made


@torch.inference_mode()
def test_both_towers_and_the_scores_equal_the_reference(reference, state):
    model = siglip.load(state)
    wanted = reference(input_ids=tokens(), pixel_values=pixels(2, SIDE))
    image, text = model.image_encoder(pixels(2, SIDE)), model.text_encoder(tokens())
    assert apart(image, reference.vision_model(pixels(2, SIDE)).pooler_output) <= 1e-5
    assert apart(text, reference.text_model(tokens()).pooler_output) <= 1e-5
    unit = [vectors / vectors.norm(dim=-1, keepdim=True) for vectors in (image, text)]
    logits = model.scale * unit[0] @ unit[1].T + model.bias
    assert (logits.sigmoid() - wanted.logits_per_image.sigmoid()).abs().max() <= 1e-5
    assert (model.image_size, model.context_length, model.vocab_size, model.embed_dim) == (SIDE, CONTEXT, VOCABULARY, 128)


@torch.inference_mode()
def test_text_is_read_at_the_end_of_the_whole_context(state):
    model = siglip.load(state)
    assert apart(model.text_encoder(tokens()[:, :9]), model.text_encoder(tokens())) > 1e-3


def test_medsiglips_towers_have_sixteen_heads():
    assert siglip.heads_of(1152) == 16
    assert siglip.heads_of(768) == 12


def test_published_keys_are_there(state):
    for key in (
        "vision_model.embeddings.patch_embedding.bias",
        "vision_model.encoder.layers.0.self_attn.out_proj.weight",
        "vision_model.head.probe",
        "vision_model.head.attention.in_proj_weight",
        "text_model.embeddings.position_embedding.weight",
        "text_model.head.bias",
        "logit_scale",
        "logit_bias",
    ):
        assert key in state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vision_model.head.probe": torch.zeros(1, 1, 3)}, r"head\.probe has shape \(1, 1, 3\), not \(1, 1, 128\)"),
        ({"logit_bias": None}, "no tensor named logit_bias"),
        ({"visual_projection.weight": torch.zeros(1)}, r"visual_projection\.weight is unexpected"),
        ({"text_model.head.bias": None}, r"text_model\.head\.bias is missing"),
        ({"vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(3)}, "sizes|shape"),
    ],
)
def test_another_checkpoint_is_refused_with_what_differs(state, change, said):
    changed = {key: value for key, value in {**state, **change}.items() if value is not None}
    with pytest.raises(SetupError, match=said):
        siglip.load(changed)
