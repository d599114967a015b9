"""A float32 network at another precision on a device: strict (PyTorch's autocast, the residual stream float32), or whole.

Whole: weights and activations at the type, LayerNorm and softmax summed in float32 inside their kernels. The prompt encoder is
float32 either way. Batch normalisation is folded into the convolution before it, as an exported graph has it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from loadtests.gpu import fused
from serving.build.nets.sam import PromptEncoder
from serving.build.nets.tiny_vit import ConvNorm

TYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Run = Callable[..., Any]


def run(module: nn.Module, form: str, device: str, *, attention: str = "", compiled: bool = False) -> Run:
    """The module as `form` on the device: "f32", "tf32", "bf16", "fp16", or "bf16-strict" and "fp16-strict".

    Floating inputs may be float32; outputs are. `attention`: see `fused`. TF32 is a setting of the whole process.
    """
    kind, _, strict = form.partition("-")
    dtype = TYPES[kind]
    tf32(kind == "tf32")
    made = fused.replaced(_folded(copy.deepcopy(module).eval()), attention).to(device)
    if strict:
        _lower_products(made, dtype)
    elif dtype != torch.float32:
        _lower(made, dtype)
    body: Any = torch.compile(made, dynamic=False) if compiled else made
    wide = dtype == torch.float32 or bool(strict)
    around = (lambda: torch.autocast(device, dtype)) if strict else nullcontext

    def call(*given: Tensor) -> Any:
        with torch.inference_mode(), around():
            taken = (
                given if wide else [_cast(name, value, dtype) for name, value in zip(_names(made, given), given, strict=True)]
            )
            return _widened(body(*taken))

    return call


def tf32(on: bool) -> None:
    """Whether float32 products of this process may round their operands to TF32; PyTorch's default is yes for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


class Exact(nn.Module):
    """A prompt encoder that computes in float32 whatever is around it, its output at `dtype`."""

    def __init__(self, inner: PromptEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """See `PromptEncoder`."""
        with torch.autocast(points.device.type, enabled=False):
            made: Tensor = self.inner(points, labels)
        return made.to(self.dtype)


def _lower_products(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights of linear layers and convolutions: what autocast would cast at every call."""
    for name, child in module.named_children():
        if isinstance(child, PromptEncoder):
            setattr(module, name, Exact(child, torch.float32))
        elif isinstance(child, nn.Linear | nn.Conv2d):
            child.to(dtype)
        else:
            _lower_products(child, dtype)


def _lower(module: nn.Module, dtype: torch.dtype) -> None:
    """All but prompt encoders."""
    for name, child in module.named_children():
        if isinstance(child, PromptEncoder):
            setattr(module, name, Exact(child, dtype))
        else:
            _lower(child, dtype)
    for tensors in (module._parameters, module._buffers):
        for name, value in tensors.items():
            if value is not None and value.is_floating_point():
                tensors[name] = nn.Parameter(value.to(dtype), False) if isinstance(value, nn.Parameter) else value.to(dtype)


def _names(module: nn.Module, given: tuple[Tensor, ...]) -> list[str]:
    """A click's points stay float32: the last two of six inputs are its prompt."""
    return ["", "", "", "", "points", "labels"] if len(given) == 6 else [""] * len(given)


def _cast(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    return value if name or not value.is_floating_point() else value.to(dtype)


def _widened(made: Any) -> Any:
    if isinstance(made, Tensor):
        return made.float() if made.is_floating_point() else made
    return tuple(_widened(each) for each in made)


def _folded(module: nn.Module) -> nn.Module:
    """ConvNorm -> one convolution."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, fuse_conv_bn_eval(child.c, child.bn))
        else:
            _folded(child)
    return module
