"""LiteMedSAM's modules: against Hugging Face's SAM where they are the same, the folded decoder, strict loading."""

import numpy as np
import pytest
import torch
from transformers import SamConfig, SamModel

from serving.build.nets import litemedsam
from serving.build.nets.sam import MaskDecoder, PromptEncoder
from serving.errors import SetupError


@pytest.fixture(scope="module")
def seeded():
    """The modules with seeded weights of about trained sizes."""
    torch.manual_seed(0)
    model = litemedsam.LiteMedSam().eval()
    with torch.no_grad():
        for name, value in model.mask_decoder.named_parameters():
            if value.ndim > 1 and "token" not in name:
                torch.nn.init.xavier_uniform_(value)
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.normal_()
    return model


def hugging_face(model):
    """SamModel's prompt encoder and mask decoder with our weights, under its names."""
    vision = {
        "hidden_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "global_attn_indexes": [0],
        "num_pos_feats": 128,
    }
    sam = SamModel(SamConfig(vision_config=vision)).eval()
    renames = (
        ("output_upscaling.0", "upscale_conv1"), ("output_upscaling.1", "upscale_layer_norm"),
        ("output_upscaling.3", "upscale_conv2"), ("norm_final_attn", "layer_norm_final_attn"), (".norm", ".layer_norm"),
    )  # fmt: skip
    state = {}
    for key, value in model.mask_decoder.state_dict().items():
        for ours, theirs in renames:
            key = key.replace(ours, theirs)
        if "mlps" in key or "iou_prediction_head" in key:
            key = key.replace("layers.0", "proj_in").replace("layers.2", "proj_out").replace("layers.1", "layers.0")
        state[key] = value
    sam.mask_decoder.load_state_dict(state)
    return sam


@torch.inference_mode()
def test_the_mask_decoder_is_sam_s(seeded):
    sam = hugging_face(seeded)
    torch.manual_seed(1)
    features, sparse = torch.randn(1, 256, 64, 64), torch.randn(2, 3, 256)
    grid = seeded.prompt_encoder.pe_layer.grid(64)
    dense = seeded.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    masks, iou = sam.mask_decoder(
        image_embeddings=features, image_positional_embeddings=grid.permute(2, 0, 1)[None],
        sparse_prompt_embeddings=sparse[None], dense_prompt_embeddings=dense.expand(1, -1, 64, 64), multimask_output=True,
    )[:2]  # fmt: skip
    _, _, ours, ours_iou = litemedsam.Decode(seeded)(features, sparse)
    assert (ours - masks[0]).abs().max() <= 1e-4 * masks.abs().max()
    assert (ours_iou - iou[0]).abs().max() <= 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("points", [1, 2, 12])
def test_the_folded_decoder_is_the_decoder(seeded, points):
    torch.manual_seed(2)
    features, sparse = torch.randn(1, 256, 64, 64), torch.randn(3, points, 256)
    for stock, folded in zip(
        litemedsam.Decode(seeded)(features, sparse), litemedsam.folded(seeded)(features, sparse), strict=True
    ):
        assert (stock - folded).abs().max() <= 1e-4 * stock.abs().max()


@torch.inference_mode()
def test_the_refiner_differs_where_logits_say_so(seeded):
    torch.manual_seed(3)
    features, sparse = torch.randn(1, 256, 64, 64), torch.randn(1, 2, 256)
    logits = torch.randn(1, 1, 256, 256) * 10
    plain = litemedsam.Decode(seeded)(features, sparse)[0]
    refined = litemedsam.Refine(seeded)(features, sparse, logits)[0]
    assert (plain - refined).abs().max() > 1e-3


def test_the_prompt_encoder_s_padding_does_not_depend_on_its_place():
    torch.manual_seed(4)
    encoder = PromptEncoder(256)
    labels = torch.tensor([[litemedsam.TOP, litemedsam.BOTTOM, -1]])
    one = encoder(torch.tensor([[[10.0, 20.0], [30.0, 40.0], [0.0, 0.0]]]), labels)
    other = encoder(torch.tensor([[[10.0, 20.0], [30.0, 40.0], [99.0, 7.0]]]), labels)
    assert torch.equal(one, other)
    assert torch.equal(one[0, 2], encoder.not_a_point_embed.weight[0])


def test_the_encoder_takes_any_batch(seeded):
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        both = seeded.image_encoder(images)
        assert both.shape == (2, 256, 64, 64)
        assert np.abs((both[1:] - seeded.image_encoder(images[1:])).numpy()).max() <= 1e-5


def test_loading_is_strict_and_says_which_tensor(seeded):
    state = seeded.state_dict()
    assert litemedsam.load({"model": {f"module.{key}": value for key, value in state.items()}})
    some = next(iter(state))
    with pytest.raises(SetupError, match="is missing"):
        litemedsam.load({key: value for key, value in state.items() if key != some})
    with pytest.raises(SetupError, match="has shape"):
        litemedsam.load({**state, some: torch.zeros(1)})
    with pytest.raises(SetupError, match="extra is not known"):
        litemedsam.load({**state, "extra": torch.zeros(1)})


def test_the_decoder_has_the_checkpoint_s_keys():
    assert "transformer.layers.1.cross_attn_token_to_image.q_proj.weight" in MaskDecoder().state_dict()
    assert len(litemedsam.LiteMedSam().state_dict()) == 435
