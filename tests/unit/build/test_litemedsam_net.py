"""LiteMedSAM's modules: against Hugging Face's SAM where they are the same, the folded decoder, strict loading."""

import numpy as np
import pytest
import torch
from transformers import SamConfig, SamModel

from serving.build.nets import litemedsam
from serving.build.nets.folded import Prepare
from serving.build.nets.sam import MaskDecoder, PromptEncoder
from serving.build.nets.tiny_vit import WINDOWS, Block
from serving.build.nets.tiny_vit_folded import FoldedBlock, FoldedEncoder
from serving.errors import SetupError
from serving.families.litemedsam.engines import FEATURES
from serving.families.sam_engines import FOLDED_TOKENS


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


def prepared(model, features):
    """The encoder's output (1, 256, 64, 64) as it lies in a slot: x0, k0, v0, q0."""
    stock = litemedsam.Decode(model)
    return Prepare(model.mask_decoder, stock.positions, stock.dense)(features)


def prompts(objects, points, seed=0):
    """Points (1, P, N, 2) of the model frame and their labels (1, P, N), pads among them."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 4, (1, objects, points), generator=made)
    return torch.rand(1, objects, points, 2, generator=made) * 256, labels


@torch.inference_mode()
@pytest.mark.parametrize(("objects", "points"), [(1, 1), (3, 2), (2, 12)])
def test_a_click_is_sam_s_prompt_encoder_and_decoder(seeded, objects, points):
    torch.manual_seed(2)
    features = prepared(seeded, torch.randn(1, 256, 64, 64))
    asked = prompts(objects, points)
    stock, folded = litemedsam.ClickStock(seeded)(*features, *asked), litemedsam.Click(seeded)(*features, *asked)
    shapes = [(1, objects, 1, 256, 256), (1, objects, 1), (1, objects, 3, 256, 256), (1, objects, 3)]
    assert [tuple(value.shape) for value in folded] == shapes
    for one, other in zip(stock, folded, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-4 * one.abs().max()


@torch.inference_mode()
def test_the_stock_click_is_told_the_encoder_s_output_by_x0_alone(seeded):
    torch.manual_seed(2)
    output = torch.randn(1, 256, 64, 64)
    points, labels = prompts(2, 3)
    direct = litemedsam.Decode(seeded)(output, seeded.prompt_encoder(points[0], labels[0]))
    for one, other in zip(direct, litemedsam.ClickStock(seeded)(*prepared(seeded, output), points, labels), strict=True):
        assert (one - other[0]).abs().max() <= 1e-5 * one.abs().max()


@torch.inference_mode()
def test_objects_of_one_click_do_not_hear_each_other(seeded):
    torch.manual_seed(2)
    features, (points, labels) = prepared(seeded, torch.randn(1, 256, 64, 64)), prompts(3, 2)
    click = litemedsam.Click(seeded)
    together = click(*features, points, labels)
    for n in range(3):
        alone = click(*features, points[:, n : n + 1], labels[:, n : n + 1])
        for all_of_them, one in zip(together, alone, strict=True):
            assert (all_of_them[:, n : n + 1] - one).abs().max() <= 1e-4 * one.abs().max()


@torch.inference_mode()
def test_the_refiner_is_sam_with_a_mask_prompt(seeded):
    torch.manual_seed(3)
    output, (points, labels) = torch.randn(1, 256, 64, 64), prompts(2, 2)
    logits = torch.randn(1, 2, 1, 256, 256) * 10
    x0 = prepared(seeded, output)[0]
    dense = seeded.prompt_encoder.mask_downscaling(logits[0])
    sparse = seeded.prompt_encoder(points[0], labels[0])
    positions = litemedsam.Decode(seeded).positions
    masks, ious = seeded.mask_decoder(output + dense, positions, sparse)
    refined = litemedsam.Refine(seeded)(x0, points, labels, logits, torch.ones(1, 2))
    for one, other in zip((masks[:, :1], ious[:, :1], masks[:, 1:], ious[:, 1:]), refined, strict=True):
        assert (one - other[0]).abs().max() <= 1e-4 * one.abs().max()
    plain = litemedsam.ClickStock(seeded)(*prepared(seeded, output), points, labels)[0]
    assert (plain - refined[0]).abs().max() > 1e-3


@torch.inference_mode()
def test_many_points_without_a_mask_get_the_same_of_the_refiner_and_of_the_folded_decoder(seeded):
    torch.manual_seed(4)
    features, (points, labels) = prepared(seeded, torch.randn(1, 256, 64, 64)), prompts(2, FOLDED_TOKENS + 1)
    folded = litemedsam.Click(seeded)(*features, points, labels)
    logits, earlier = torch.randn(1, 2, 1, 256, 256), torch.tensor([[0.0, 1.0]])
    refined = litemedsam.Refine(seeded)(features[0], points, labels, logits, earlier)
    for one, other in zip(folded, refined, strict=True):
        assert (one[:, 0] - other[:, 0]).abs().max() <= 1e-5 * one.abs().max()
    assert torch.equal(folded[0][:, 0] > 0, refined[0][:, 0] > 0)
    assert (folded[0][:, 1] - refined[0][:, 1]).abs().max() > 1e-3, "the other object had an earlier answer"


@torch.inference_mode()
def test_the_encoder_gives_what_lies_in_a_slot(seeded):
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(6))
    made = litemedsam.Encode(seeded)(image)
    for one, other in zip(made, prepared(seeded, seeded.image_encoder(image)), strict=True):
        assert torch.equal(one, other)
    assert [tuple(value.shape[1:]) for value in made] == [spec.shape for spec in FEATURES]


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


def unlike_the_start(module):
    """Seeded scales, shifts, biases and statistics: what the modules start with would hide a wrong sign or a lost term."""
    made = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if (value.is_floating_point() and value.ndim <= 1) or "attention_biases" in name:
                value.copy_(torch.rand(value.shape, generator=made) + 0.5)
    return module.eval()


@torch.inference_mode()
@pytest.mark.parametrize("window", [WINDOWS[1], WINDOWS[2]])
def test_a_folded_block_is_the_block_of_the_checkpoint(window):
    torch.manual_seed(4)
    side = 2 * window - 3  # the last window of each row and column is padded
    block = unlike_the_start(Block(64, side, 2, window))
    tokens = torch.randn(2, side * side, 64)
    wanted = block(tokens)
    assert (FoldedBlock(block)(tokens) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@torch.inference_mode()
def test_the_exported_encoder_is_the_encoder_of_the_checkpoint():
    torch.manual_seed(6)
    model = unlike_the_start(litemedsam.LiteMedSam())
    image = torch.rand(1, 3, 256, 256)
    wanted = litemedsam.Encode(model)(image)
    for one, other in zip(wanted, litemedsam.Encode(model, FoldedEncoder(model.image_encoder))(image), strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
