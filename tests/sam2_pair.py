"""A small seeded Sam2VideoModel of Hugging Face's, and MedSAM2's engines made of our modules with the same weights."""

import asyncio
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

from serving import slots
from serving.build import config, export
from serving.build.recipes.medsam2 import EXPORTED, of_model
from serving.domain.image import Frame, Image
from serving.domain.request import Deadline
from serving.engines.fake import FakeEngine
from serving.families.medsam2 import engines
from serving.families.medsam2.postprocess import binary_mask
from serving.families.medsam2.preprocess import prepare
from serving.families.medsam2.propagate import Object, Propagation
from serving.manifest import EngineRecord, Manifest

SIDE, WIDTH = 128, 8
"""Pixels of the square image, channels of the trunk's first stage; what is behind the trunk is of one size in every SAM 2."""

PRESENCE = 5.0
"""Added to the presence score: drawn weights alone would say of half of all slices that nothing is there."""


@torch.no_grad()
def hugging_face(side=SIDE, width=WIDTH, seed=0, memory_layers=4):
    """Every parameter drawn, positions, embeddings and layer scales too, which are zero or nearly so when a model is new."""
    grid, widths = side // 16, [width, 2 * width, 4 * width, 8 * width]
    trunk = Sam2HieraDetConfig(
        hidden_size=width, image_size=[side, side], blocks_per_stage=[1, 2, 7, 2], embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[8, 4, 14, 7], global_attention_blocks=[5, 7, 9],
        window_positional_embedding_background_size=[7, 7],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=trunk, backbone_channel_list=widths[::-1], fpn_top_down_levels=[2, 3],
        backbone_feature_sizes=[[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
    )  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config={"image_size": side}, image_size=side,
        memory_attention_rope_feat_sizes=[grid, grid], memory_attention_num_layers=memory_layers,
    )  # fmt: skip
    model = Sam2VideoModel(config).eval()
    drawn = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        table = value.dim() < 2 or any(word in name for word in ("embed", "token", "pos", "no_", "occlusion"))
        scale = 0.3 if table else value[0].numel() ** -0.5
        value.copy_(scale * torch.randn(value.shape, generator=drawn) + (1 if "norm" in name and "weight" in name else 0))
    model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(PRESENCE)
    positions = model.prompt_encoder.shared_embedding.positional_embedding
    positions.copy_(torch.randn(positions.shape, generator=drawn))
    model.shared_image_embedding.positional_embedding.copy_(positions)
    return model


def as_sam2_asks(model, monkeypatch):
    """sam2 asks for one mask where it wants the pointer of a user's mask (`_forward_sam_heads`), Hugging Face's for three."""
    asked = model._single_frame_forward
    monkeypatch.setattr(model, "_single_frame_forward", partial(_one_mask, asked))


def _one_mask(asked, *given, multimask_output=False, **named):
    return asked(*given, multimask_output=multimask_output, **named)


def record(side=SIDE):
    """A record of a built model."""
    return Manifest(
        model="medsam2",
        family="medsam2",
        pool="adaptive",
        digest="d" * 64,
        source="",
        licence="",
        engines={part: (EngineRecord(name=f"medsam2_{part}", digest="e" * 64),) for part in engines.PARTS},
        options={"image_size": side},
    )


class ArenaEngine(FakeEngine):
    """A fake whose Features really lie in the arena's slots, where the backends put them. `arena`: a real, small one."""

    arena = None

    async def infer(self, inputs, deadline, *, slot=None, **more):
        tensors = self.spec.writes or self.spec.reads
        sizes = [4 * math.prod(each.shape) for each in tensors]
        held = self.arena.view(slot)
        views = {
            each.name: held[start : start + size].view(np.float32).reshape(1, *each.shape)
            for each, start, size in zip(tensors, slots.offsets(sizes), sizes, strict=False)
        }
        if self.spec.reads:
            return await super().infer({**views, **inputs}, deadline, **more)
        for name, value in (await super().infer(inputs, deadline, **more)).items():
            views[name][:] = value
        return {}


def engine_of(kind, model, part, spec):
    """An engine that runs our module in PyTorch."""
    module = EXPORTED[part](model).eval()
    inputs = [each.name for each in (*spec.reads, *spec.inputs)]
    outputs = [each.name for each in (*spec.writes, *spec.outputs)]

    def run(given):
        with torch.inference_mode():
            made = module(*(torch.from_numpy(given[name]) for name in inputs))
        made = made if isinstance(made, tuple) else (made,)
        return {name: value.numpy() for name, value in zip(outputs, made, strict=True)}

    return kind(spec, run)


def fakes(model, side=SIDE):
    """part -> engine, sharing what they hold."""
    held = {}
    found = {part: engine_of(FakeEngine, model, part, spec) for part, spec in engines.specs(record(side)).items()}
    for each in found.values():
        each.held = held
    return found


def build(model, repository, side=SIDE):
    """The model's engines and its record in a repository. The refiner is left out: its record is the decoder's."""
    made = of_model(model)
    for part, spec in engines.specs(record(side)).items():
        folder, backend = repository / spec.name, made.parts[part].backend
        if part == "mask_refiner":
            continue
        config.write(folder, spec, backend)
        (folder / "1").mkdir()
        export.to_onnx(made.parts[part], folder / "1" / "model.onnx")
        if backend == "openvino":
            export.to_openvino(folder / "1" / "model.onnx", folder / "1" / "model.xml")
        export.compare(made.parts[part], folder / "1", made.samples[part])
    written = record(side)
    written = written.model_copy(update={"engines": {**written.engines, "mask_refiner": written.engines["mask_decoder"]}})
    written.write(repository)


def followed(model, volume, shown, key, side=SIDE):
    """(slices, rows, columns) bool of one object in (slices, rows, columns) uint8, without server, pool or family."""

    async def go():
        made, (slices, rows, columns) = fakes(model, side), volume.shape
        found = np.zeros(volume.shape, bool)
        walk = Propagation([Object(shown, key, slices)], made, (columns, rows), side, Deadline.after(600))
        for index in (*range(key, slices), *range(key - 1, -1, -1)):
            slot = SimpleNamespace(index=index, generation=1)
            image = prepare(Image(np.ascontiguousarray(volume[index]), Frame((columns, rows))), side).tensor
            await made["image_encoder"].infer({"image": image}, Deadline.after(600), slot=slot)
            found[index] = binary_mask((await walk.visit(index, slot, [0]))[0], (columns, rows))
        return found

    return asyncio.run(go())
