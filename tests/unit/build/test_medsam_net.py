"""SAM's ViT and both checkpoint layouts, against Hugging Face's SamModel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sams import SAM_B, hugging_face, seeded, tiny_sam

from serving.build import export
from serving.build.catalogue import ENTRIES
from serving.build.nets import litemedsam, medsam, sam_parts
from serving.build.nets.sam_layout import original
from serving.build.nets.sam_vit import Sizes, sizes_of
from serving.build.recipes import Choices
from serving.build.recipes.medsam import parts
from serving.errors import SetupError

REPRESENTATIVE = {
    "image_encoder.pos_embed": (1, 64, 64, 768),
    "image_encoder.patch_embed.proj.weight": (768, 3, 16, 16),
    "image_encoder.blocks.0.attn.rel_pos_h": (27, 64),
    "image_encoder.blocks.2.attn.rel_pos_w": (127, 64),
    "image_encoder.blocks.0.attn.qkv.weight": (2304, 768),
    "image_encoder.neck.0.weight": (256, 768, 1, 1),
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
    "prompt_encoder.point_embeddings.0.weight": (1, 256),
    "prompt_encoder.point_embeddings.3.weight": (1, 256),
    "prompt_encoder.not_a_point_embed.weight": (1, 256),
    "prompt_encoder.mask_downscaling.0.weight": (4, 1, 2, 2),
    "prompt_encoder.no_mask_embed.weight": (1, 256),
    "mask_decoder.iou_token.weight": (1, 256),
    "mask_decoder.mask_tokens.weight": (4, 256),
    "mask_decoder.transformer.layers.0.self_attn.q_proj.weight": (256, 256),
    "mask_decoder.output_upscaling.0.weight": (256, 64, 2, 2),
    "mask_decoder.output_hypernetworks_mlps.0.layers.0.weight": (256, 256),
    "mask_decoder.iou_prediction_head.layers.0.weight": (256, 256),
}
GLOBAL = {"l": (24, (5, 11, 17, 23)), "h": (32, (7, 15, 23, 31))}
SIZES = {
    "b": SAM_B,
    "l": Sizes(1024, 4096, 16, 16, 64, tuple(64 if n in GLOBAL["l"][1] else 14 for n in range(GLOBAL["l"][0]))),
    "h": Sizes(1280, 5120, 16, 16, 64, tuple(64 if n in GLOBAL["h"][1] else 14 for n in range(GLOBAL["h"][0]))),
}


def published(size):
    """The state dict of a published size, shapes only."""
    with torch.device("meta"):
        return medsam.SamVit(SIZES[size]).state_dict()


@torch.inference_mode()
@pytest.mark.parametrize(("side", "patch", "window"), [(160, 8, 6), (96, 8, 4), (64, 16, 3)])
def test_the_encoder_is_hugging_face_s(side, patch, window):
    """Windows that fill the grid and windows that do not, two images at once."""
    sam = hugging_face(side, patch, window)
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    wanted = sam.vision_encoder(image).last_hidden_state
    found = medsam.load(sam.state_dict()).image_encoder(image)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.fixture(scope="module")
def pair():
    """Hugging Face's whole model, and the same weights loaded here: 256 pixels in 64 x 64 patches."""
    sam = hugging_face(256, 4, 14, layers=2, width=32, heads=2)
    return sam, medsam.load(sam.state_dict())


@pytest.fixture(scope="module")
def encoded(pair):
    """One picture through both encoders: Hugging Face's embedding, and what lies in a slot."""
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return pair[0].vision_encoder(image).last_hidden_state, sam_parts.Encode(pair[1])(image)


PROMPTS = {
    "a box": ({"input_boxes": [[[40.0, 60.5, 200.0, 180.0]]]}, [[40, 60.5, 2], [200, 180, 3]]),
    "clicks": (
        {"input_points": [[[[50.0, 60.0], [90.25, 30.0]]]], "input_labels": [[[1, 0]]]},
        [[50, 60, 1], [90.25, 30, 0], [0, 0, -1]],
    ),
    "a click and a box": (
        {"input_points": [[[[50.0, 60.0]]]], "input_labels": [[[1]]], "input_boxes": [[[40.0, 20.0, 200.0, 180.0]]]},
        [[50, 60, 1], [40, 20, 2], [200, 180, 3]],
    ),
}  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("earlier", [False, True])
def test_masks_are_hugging_face_s(pair, encoded, name, earlier):
    """From pixels and prompts to logits through the parts as they are exported: encode, click, refine."""
    sam, ours = pair
    theirs, tokens = PROMPTS[name]
    embedding, (x0, k0, v0, q0) = encoded
    logits = 5 * torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(3))
    given = {key: torch.tensor(value) for key, value in theirs.items()} | ({"input_masks": logits} if earlier else {})
    wanted = [sam(image_embeddings=embedding, multimask_output=many, **given) for many in (False, True)]
    table = torch.tensor(tokens, dtype=torch.float32)
    points, labels = table[None, None, :, :2], table[None, None, :, 2].long()
    if earlier:
        found = sam_parts.Refine(ours)(x0, points, labels, logits[None], torch.ones(1, 1))
    else:
        found = sam_parts.Click(ours)(x0, k0, v0, q0, points, labels)
    for one, (masks, ious) in zip(wanted, (found[:2], found[2:]), strict=True):
        assert (masks[0] - one.pred_masks[0]).abs().max() <= 1e-4 * one.pred_masks.abs().max()
        assert (ious[0] - one.iou_scores[0]).abs().max() <= 1e-4 * one.iou_scores.abs().max()


def test_the_decoder_has_upstream_s_epsilons(pair):
    norms = {name: module.eps for name, module in pair[1].mask_decoder.named_modules() if hasattr(module, "eps")}
    assert {eps for name, eps in norms.items() if name.startswith("transformer.")} == {1e-5}
    assert {eps for name, eps in norms.items() if not name.startswith("transformer.")} == {1e-6}


def wrapped(state):
    yield "module.", {f"module.{key}": value for key, value in state.items()}
    yield "model", {"model": state, "optimizer": {"param_groups": []}, "epoch": 3}
    yield "model, module.", {"model": {f"module.{key}": value for key, value in state.items()}}
    yield "state_dict, model.", {"state_dict": {f"model.{key}": value for key, value in state.items()}}
    yield "with the constants", {**state, "pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}


def test_every_layout_loads_to_the_same_weights(pair):
    state = pair[1].state_dict()
    for name, checkpoint in wrapped(state):
        loaded = medsam.load(checkpoint).state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in state.items()), name
    one_name = {key: value for key, value in pair[0].state_dict().items() if not key.startswith("shared_image_embedding")}
    loaded = medsam.load(one_name).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in state.items())


def test_a_float32_checkpoint_is_used_as_it_is_and_not_copied():
    state = tiny_sam().state_dict()
    loaded = medsam.load(state)
    assert all(value.data_ptr() == state[key].data_ptr() for key, value in loaded.state_dict().items())
    assert not any(value.is_meta for value in (*loaded.parameters(), *loaded.buffers()))


def test_half_precision_checkpoints_are_widened(pair):
    loaded = medsam.load({key: value.half() for key, value in pair[1].state_dict().items()})
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_told_from_the_shapes(size):
    assert sizes_of(published(size)) == SIZES[size]


def test_the_representative_keys_of_the_published_checkpoint():
    state = published("b")
    assert {key: tuple(state[key].shape) for key in REPRESENTATIVE} == REPRESENTATIVE
    assert len(state) == 314


def test_a_wrong_checkpoint_is_refused_by_its_first_differences():
    state = tiny_sam().state_dict()
    key = "image_encoder.blocks.1.mlp.lin1.bias"
    refused = {
        f"{key} is missing": {k: v for k, v in state.items() if k != key},
        f"{key} has shape (3,), not (64,)": {**state, key: torch.zeros(3)},
        "adapter.weight is unexpected": {**state, "adapter.weight": torch.zeros(1)},
        "image_encoder.patch_embed.proj.weight is missing": litemedsam.LiteMedSam().state_dict(),
        "image_encoder.pos_embed has shape (3,), not 4 axes": {**state, "image_encoder.pos_embed": torch.zeros(3)},
        "image_encoder.blocks.0.attn.rel_pos_h is missing": {k: v for k, v in state.items() if ".blocks." not in k},
    }
    for phrase, checkpoint in refused.items():
        with pytest.raises(SetupError) as raised:
            medsam.load(checkpoint)
        assert phrase in str(raised.value)
        assert "\n" not in str(raised.value)
    many = {k: v for k, v in state.items() if "neck" not in k}
    with pytest.raises(SetupError, match="and 3 more"):
        medsam.load(many)


def test_a_recipe_refuses_other_sizes():
    large = seeded(medsam.SamVit(replace(SIZES["l"], windows=(64,)))).state_dict()
    with pytest.raises(SetupError, match="not of sam-vit-b: build it as sam-vit-l"):
        parts(large, Choices(ENTRIES["sam-vit-b"], "sam"))
    small = medsam.SamVit(Sizes(32, 64, 1, 16, 16, (14, 16))).state_dict()
    with pytest.raises(SetupError, match="256-pixel images in 16 x 16 patches; 1024 pixels in 64 x 64 are served"):
        parts(small, Choices(ENTRIES["medsam"], "july-2023"))


def test_weights_above_protobuf_s_limit_lie_beside_the_graph(tmp_path, monkeypatch):
    """ViT-H's are 2.5 GB; here the limit is lowered instead."""
    part = export.Part(torch.nn.Linear(300, 200), {"input": torch.rand(2, 300)}, {"input": {0: "b"}}, ("y",), "openvino")
    sample = {"input": np.random.default_rng(0).random((3, 300), np.float32)}
    for limit, files in ((export.GRAPH_BYTES, {"model.onnx"}), (1000, {"model.onnx", "model.onnx.data"})):
        monkeypatch.setattr(export, "GRAPH_BYTES", limit)
        folder = tmp_path / str(limit)
        folder.mkdir()
        export.to_onnx(part, folder / "model.onnx")
        assert {path.name for path in folder.iterdir()} == files
        export.to_openvino(folder / "model.onnx", folder / "model.xml")
        for backend in ("openvino", "onnxruntime"):
            assert export.compare(replace(part, backend=backend), folder, [sample])["y_max_abs"] <= 1e-5


def test_hugging_face_s_two_names_of_one_tensor_become_one():
    state = original(hugging_face(64, 16, 3).state_dict())
    assert not [key for key in state if "shared" in key or "vision" in key or "layer_norm" in key]
