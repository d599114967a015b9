"""MedSAM2's parts as they are exported.

Upstream chooses one of four masks by thresholds (`sam2_base.py`, `mask_decoder.py`); here every part gives all four and the
family chooses, so no part jumps where a number is near a threshold.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.build.nets import sine
from serving.build.nets.medsam2 import MEMORIES, MedSam2
from serving.build.nets.memory_attention import MEMORY, POINTER_TOKENS, WIDTH, Given
from serving.build.nets.sam import PAD

MASK_SCALE, MASK_BIAS = 20.0, -10.0
"""`sigmoid_scale_for_mem_enc`, `sigmoid_bias_for_mem_enc`."""


class Encode(nn.Module):
    """image (B, 3, S, S) -> Features: x (B, G * G, 256), s1 (B, 64, 2 G, 2 G), s0 (B, 32, 4 G, 4 G); G is S / 16."""

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        self.positions: Tensor
        self.encoder = model.image_encoder
        self.conv_s0, self.conv_s1 = model.sam_mask_decoder.conv_s0, model.sam_mask_decoder.conv_s1
        self.register_buffer("positions", model.image_encoder.trunk.positions().detach())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        fine, middle, coarse = self.encoder(image, self.positions)
        return coarse.flatten(2).transpose(1, 2), self.conv_s1(middle), self.conv_s0(fine)


class Decode(nn.Module):
    """The decoder with what every decoding part ends with: masks, IoU, object pointers, presence score."""

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        self.positions: Tensor
        self.decoder = model.sam_mask_decoder
        self.pointer = model.obj_ptr_proj
        self.absent = model.no_obj_ptr
        grid = model.sam_prompt_encoder.pe_layer.grid(model.sizes.grid)
        self.register_buffer("positions", grid.reshape(1, -1, WIDTH).detach())

    def forward(self, image: Tensor, sparse: Tensor, s1: Tensor, s0: Tensor) -> tuple[Tensor, ...]:
        """image (P, N, 256) with its dense prompt -> masks (1, P, 4, 4 G, 4 G), ious (1, P, 4), pointers (1, P, 4, 256), score
        (1, P, 1). Pointers are those of no object where the score is not above 0."""
        masks, ious, tokens, score = self.decoder(image, self.positions, sparse, s1, s0)
        there = (score > 0).to(tokens.dtype).unsqueeze(-1)
        pointers = there * self.pointer(tokens) + (1 - there) * self.absent
        return masks.unsqueeze(0), ious.unsqueeze(0), pointers.unsqueeze(0), score.unsqueeze(0)


class Click(nn.Module):
    """Features, points (1, P, N, 2) and labels (1, P, N) -> as `Decode`. No memory: a picture, or the key slice."""

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        self.added: Tensor
        self.prompt_encoder = model.sam_prompt_encoder
        self.decode = Decode(model)
        dense = model.sam_prompt_encoder.no_mask_embed.weight
        self.register_buffer("added", (model.no_mem_embed.reshape(1, 1, WIDTH) + dense.reshape(1, 1, WIDTH)).detach())

    def forward(self, x: Tensor, s1: Tensor, s0: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        sparse = self.prompt_encoder(points.squeeze(0), labels.squeeze(0))
        found: tuple[Tensor, ...] = self.decode((x + self.added).expand(sparse.shape[0], -1, -1), sparse, s1, s0)
        return found


class Refine(nn.Module):
    """As `Click`, with logits (1, P, 1, 4 G, 4 G) of an earlier answer as a dense prompt."""

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        self.added: Tensor
        self.prompt_encoder = model.sam_prompt_encoder
        self.decode = Decode(model)
        self.register_buffer("added", model.no_mem_embed.detach().reshape(1, 1, WIDTH).clone())

    def forward(self, x: Tensor, s1: Tensor, s0: Tensor, points: Tensor, labels: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        sparse = self.prompt_encoder(points.squeeze(0), labels.squeeze(0))
        dense = self.prompt_encoder.mask_downscaling(logits.squeeze(0)).flatten(2).transpose(1, 2)
        found: tuple[Tensor, ...] = self.decode(x + self.added + dense, sparse, s1, s0)
        return found


class Point(nn.Module):
    """mask (1, P, 1, S, S), 0 or 1, of objects on the key slice -> pointers (1, P, 256), as `_use_mask_as_output` makes them.

    The mask is the answer there; the decoder is asked for the object's pointer alone, without the no-memory embedding.
    """

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        self.sparse: Tensor
        self.prompt_encoder = model.sam_prompt_encoder
        self.shrink = model.mask_downsample
        self.decode = Decode(model)
        nothing = model.sam_prompt_encoder(torch.zeros(1, 2, 2), torch.full((1, 2), PAD))
        self.register_buffer("sparse", nothing.detach())

    def forward(self, x: Tensor, s1: Tensor, s0: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        dense = self.prompt_encoder.mask_downscaling(self.shrink(mask.squeeze(0))).flatten(2).transpose(1, 2)
        sparse = self.sparse.expand(dense.shape[0], -1, -1)
        pointers: Tensor = self.decode(x + dense, sparse, s1, s0)[2]
        return pointers[:, :, 0]


class Track(nn.Module):
    """Features of the next slice and what is remembered of P objects -> as `Decode`.

    memories (1, P, M, N, 64) with `places` (1, P, M): 0 the key slice, t a slice t steps ago. pointers_given (1, P, K, 256)
    with `ages` (1, P, K): steps since, over the most that there can be (`max_obj_ptrs - 1`).
    """

    image_positions: Tensor
    memory_positions: Tensor
    times: Tensor
    divisors: Tensor
    cosine: Tensor
    sine: Tensor
    dense: Tensor
    sparse: Tensor

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        side = model.sizes.grid
        self.attention = model.memory_attention
        self.time = model.obj_ptr_tpos_proj
        self.decode = Decode(model)
        cosine, sine_ = sine.rotation(side, WIDTH)
        self.register_buffer("cosine", cosine)
        self.register_buffer("sine", sine_)
        self.register_buffer("divisors", sine.frequencies(WIDTH))
        self.register_buffer("image_positions", sine.grid(side, WIDTH).unsqueeze(0))
        self.register_buffer("memory_positions", sine.grid(side, MEMORY))
        # Upstream's table starts with one step ago and ends with the key slice.
        self.register_buffer("times", model.maskmem_tpos_enc.detach().roll(1, 0).reshape(MEMORIES, MEMORY).clone())
        self.register_buffer("dense", model.sam_prompt_encoder.no_mask_embed.weight.detach().reshape(1, 1, WIDTH))
        nothing = model.sam_prompt_encoder(torch.zeros(1, 2, 2), torch.full((1, 2), PAD))
        self.register_buffer("sparse", nothing.detach())

    def forward(
        self, x: Tensor, s1: Tensor, s0: Tensor, memories: Tensor, places: Tensor, pointers_given: Tensor, ages: Tensor
    ) -> tuple[Tensor, ...]:
        """See the class."""
        memories, pointers = memories.squeeze(0), pointers_given.squeeze(0)
        prompts = memories.shape[0]
        times = self.times[places.squeeze(0)].unsqueeze(2) + self.memory_positions
        aged = self.time(sine.line(ages.squeeze(0), self.divisors))
        given = Given(
            memories,
            times,
            pointers.unflatten(2, (POINTER_TOKENS, MEMORY)).flatten(1, 2),
            aged.unsqueeze(2).expand(-1, -1, POINTER_TOKENS, -1).flatten(1, 2),
        )
        image = x.expand(prompts, -1, -1)
        image = self.attention(image, self.image_positions, given, (self.cosine, self.sine))
        found: tuple[Tensor, ...] = self.decode(image + self.dense, self.sparse.expand(prompts, -1, -1), s1, s0)
        return found


class Remember(nn.Module):
    """x of Features, logits (1, P, 1, 4 G, 4 G), prompted (1, P, 1), score (1, P, 1) -> memory (1, P, G * G, 64).

    Where `prompted` is 1 the mask is taken hard, as upstream does on slices that a user prompted. Where the score is not above
    0 the memory is told that the object is not there.
    """

    def __init__(self, model: MedSam2) -> None:
        super().__init__()
        self.side, self.image_size = model.sizes.grid, model.sizes.image_size
        self.encoder = model.memory_encoder
        self.absent = model.no_obj_embed_spatial

    def forward(self, x: Tensor, logits: Tensor, prompted: Tensor, score: Tensor) -> Tensor:
        """See the class."""
        size = (self.image_size, self.image_size)
        full = F.interpolate(logits.squeeze(0), size, mode="bilinear", align_corners=False)
        hard = prompted.reshape(-1, 1, 1, 1) > 0
        mask = torch.where(hard, (full > 0).to(full.dtype), full.sigmoid()) * MASK_SCALE + MASK_BIAS
        memory = self.encoder(x.transpose(1, 2).unflatten(2, (self.side, self.side)), mask)
        gone = (score.reshape(-1, 1, 1) <= 0).to(memory.dtype)
        return (memory.flatten(2).transpose(1, 2) + gone * self.absent).unsqueeze(0)
