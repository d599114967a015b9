"""Positions made of sines: constants of SAM 2's image encoder, memories, object pointers and rotary attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def grid(side: int, channels: int) -> Tensor:
    """(side * side, channels): y's half, then x's, sine and cosine alternating (`position_encoding.py`, normalised to 2 pi)."""
    half = channels // 2
    place = torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6) * (2 * math.pi)
    order = torch.arange(half, dtype=torch.float32)
    angle = place[:, None] / TEMPERATURE ** (2 * torch.div(order, 2, rounding_mode="floor") / half)
    line = torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)
    y, x = line[:, None].expand(side, side, half), line[None].expand(side, side, half)
    return torch.cat([y, x], dim=2).flatten(0, 1)


def frequencies(channels: int) -> Tensor:
    """(channels / 2,): what `line` divides by."""
    half = channels // 2
    order = torch.arange(half, dtype=torch.float32)
    return TEMPERATURE ** (2 * torch.div(order, 2, rounding_mode="floor") / half)


def line(place: Tensor, divisors: Tensor) -> Tensor:
    """Places (...) -> (..., channels): all sines, then all cosines (`sam2_utils.get_1d_sine_pe`)."""
    angle = place.unsqueeze(-1) / divisors
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def rotation(side: int, channels: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (side * side, channels / 2), of axial rotary attention: x's half, then y's.

    `compute_axial_cis` of sam2's `position_encoding.py`, theta 10000.
    """
    powers = torch.arange(0, channels, 4, dtype=torch.float32)[: channels // 4] / channels
    rates = 1.0 / TEMPERATURE**powers
    cell = torch.arange(side * side, dtype=torch.float32)
    x, y = cell % side, torch.div(cell, side, rounding_mode="floor")
    angle = torch.cat([torch.outer(x, rates), torch.outer(y, rates)], dim=1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(..., N, channels), each neighbouring pair a complex number, times the rotation: real parts, then imaginary parts.

    Queries and keys are put in this order alike, so their products are those of upstream's complex arithmetic.
    """
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)


def ordered(x: Tensor) -> Tensor:
    """(..., channels) in the order of `rotate`, not rotated."""
    return torch.cat(x.unflatten(-1, (-1, 2)).unbind(-1), dim=-1)
