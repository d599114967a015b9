"""Throughput, latency and the precision gate of the networks under PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loadtests.gpu import items, lowered, nets
from loadtests.gpu.clock import graphed, times_ms
from loadtests.gpu.report import Report
from serving.build import gate
from serving.build.nets.sam import BOTTOM_RIGHT, TOP_LEFT
from serving.build.nets.sam_parts import Click, Encode, Sam

PROMPTS = (1, 16, 64)


def run(report: Report, folder: Path, device: str, small: bool) -> None:
    """The gate, then every network as it is, replayed as CUDA graphs."""
    model = nets.lite(folder / "lite_medsam.pth")
    report.section("torch.gate", lambda: precision(model, folder, device, small))
    report.section("torch.decoder", lambda: decoder(model, device, False, small))
    report.section("torch.lite_encoder", lambda: lite_encoder(model, device, False, small))
    report.section("torch.sam_vit_b", lambda: sam_vit_b(device, False, small))
    report.section("torch.clip", lambda: clip(device, False, small))


def run_compiled(report: Report, folder: Path, device: str, small: bool) -> None:
    """The same through torch.compile, at fewer sizes: each is compiled for itself."""
    model = nets.lite(folder / "lite_medsam.pth")
    report.section("compiled.sam_vit_b", lambda: sam_vit_b(device, True, small), 30)
    report.section("compiled.decoder", lambda: decoder(model, device, True, small), 25)
    report.section("compiled.clip", lambda: clip(device, True, small), 20)
    report.section("compiled.lite_encoder", lambda: lite_encoder(model, device, True, small), 40)


def precision(model: Sam, folder: Path, device: str, small: bool) -> dict[str, Any]:
    """Mask IoU with float32 over the build's 120 prompts, by precision of the encoder and of the decoder."""
    given = items.load(folder / "gate.npz")[: 1 if small else None]
    encode, click = Encode(model), Click(model)

    def features(form: str) -> list[tuple[Tensor, ...]]:
        call = lowered.run(encode, form, device)
        return [call(torch.from_numpy(item.given.tensor).to(device)) for item in given]

    def masks(form: str, held: list[tuple[Tensor, ...]]) -> list[gate.Masks]:
        call = lowered.run(click, form, device)

        def decode(arrays: gate.Arrays) -> gate.Arrays:
            return {"mask": call(*(torch.as_tensor(value, device=device) for value in arrays.values()))[0].cpu().numpy()}

        names = ("x0", "k0", "v0", "q0")
        return [gate.masks(item, dict(zip(names, each, strict=True)), decode) for item, each in zip(given, held, strict=True)]

    exact = features("f32")
    wanted = masks("f32", exact)
    found: dict[str, Any] = {}
    forms = ("bf16",) if small else ("tf32", "fp16", "fp16-strict", "bf16", "bf16-strict")
    for form in forms:
        held = features(form)
        found[f"encoder {form}"] = verdict(wanted, masks("f32", held))
        found[f"decoder {form}"] = verdict(wanted, masks(form, exact))
        found[f"both {form}"] = verdict(wanted, masks(form, held))
    for mixed in () if small else (("tf32", "bf16"), ("tf32", "fp16"), ("fp16", "bf16")):
        found["encoder {}, decoder {}".format(*mixed)] = verdict(wanted, masks(mixed[1], features(mixed[0])))
    return found


def verdict(wanted: list[gate.Masks], found: list[gate.Masks]) -> dict[str, Any]:
    """Of all masks of 100 pixels and more, as the build judges them."""
    pairs = [(a, b) for one, other in zip(wanted, found, strict=True) for a, b in zip(one, other, strict=True)]
    return gate.judge_masks([gate.iou(a, b) for a, b in pairs if a.sum() >= gate.MASK_PX]).record()


def decoder(model: Sam, device: str, compiled: bool, small: bool) -> dict[str, Any]:
    """One image's Features, P boxes, one mask each: prompts a second and the time of one call."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 256, 256, generator=generator)
    with torch.inference_mode():
        features = [value.to(device) for value in Encode(model)(image)]
    found: dict[str, Any] = {}
    forms = ("bf16",) if small or compiled else ("bf16", "bf16-strict", "fp16", "tf32", "f32")
    sizes = PROMPTS[:1] if small else (1, 64) if compiled else PROMPTS
    for form in forms:
        call = lowered.run(nets.OneMask(Click(model)), form, device, compiled=compiled)
        for prompts in sizes:
            corner = 150 * torch.rand(1, prompts, 1, 2, generator=generator)
            points = torch.cat([corner, corner + 80], dim=2).to(device)
            labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=device).expand(1, prompts, 2).contiguous()
            replay, _ = graphed(lambda c=call, p=points, n=labels: c(*features, p, n), device)
            timed = times_ms(replay, device)
            rate = 1e3 * prompts / timed["each_ms"]
            found[f"{form} P={prompts}"] = {
                **timed,
                "prompts_s": round(rate),
                "TFLOP_s": round(rate * nets.GFLOP["click"] / 1e3, 1),
            }
    return found


def lite_encoder(model: Sam, device: str, compiled: bool, small: bool) -> dict[str, Any]:
    """LiteMedSAM's encoder with its once-an-image part of the decoder."""
    forms = ("bf16",) if small or compiled else ("bf16", "bf16-strict", "fp16", "tf32", "f32")
    batches = (1,) if small else (1, 64) if compiled else (1, 8, 64)
    return _images(Encode(model), (3, 256, 256), forms, batches, device, compiled, "litemedsam")


def clip(device: str, compiled: bool, small: bool) -> dict[str, Any]:
    """The image tower; its cosine with float32 beside the rates."""
    tower = nets.clip_b32().image_encoder
    forms = ("bf16",) if small or compiled else ("bf16", "bf16-strict", "tf32")
    batches = (1,) if small else (256,) if compiled else (1, 8, 64, 256, 1024)
    return _images(tower, (3, 224, 224), forms, batches, device, compiled, "clip_b32")


def sam_vit_b(device: str, compiled: bool, small: bool) -> dict[str, Any]:
    """The image encoder at 1024 pixels, by kind of attention."""
    encoder = nets.sam_vit_b(small).image_encoder
    side = 128 if small else 1024
    batches = (1,) if small else (8,) if compiled else (1, 8, 16)
    found: dict[str, Any] = {}
    for kind in ("flex", "narrow") if compiled else ("padded", "narrow", ""):
        try:
            found[kind or "as exported"] = _images(
                encoder, (3, side, side), ("bf16",), batches, device, compiled, "sam_vit_b", kind
            )
        except Exception as exc:  # a kernel that does not take these shapes; the other kinds are measured
            found[kind or "as exported"] = f"{type(exc).__name__}: {exc}"[:600]
        print(kind, found[kind or "as exported"], flush=True)
    return found


def _images(
    module: nn.Module, shape: tuple[int, ...], forms: tuple[str, ...], batches: tuple[int, ...],
    device: str, compiled: bool, gflop: str, attention: str = "",
) -> dict[str, Any]:  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for form in forms:
        call = lowered.run(module, form, device, attention=attention, compiled=compiled)
        for batch in batches:
            images = torch.rand(batch, *shape, generator=generator).to(device)
            replay, made = graphed(lambda c=call, x=images: c(x), device)
            timed = times_ms(replay, device)
            rate = 1e3 * batch / timed["each_ms"]
            teraflops = round(rate * nets.GFLOP[gflop] / 1e3, 1)
            found[f"{form} batch {batch}"] = {**timed, "images_s": round(rate, 1), "TFLOP_s": teraflops}
            if batch == batches[0]:
                found[f"{form} cosine with f32"] = _cosine(lowered.run(module, "f32", device)(images[:2]), made)
                lowered.run(nn.Identity(), form, device)  # the process's TF32 setting again
            del replay, made
    return found


def _cosine(exact: Any, found: Any) -> float:
    """Least of the first two images, on the first output."""
    one, other = (
        (made if isinstance(made, Tensor) else made[0])[:2].double().flatten(1).cpu().numpy() for made in (exact, found)
    )
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return round(float(((one * other).sum(1) / lengths).min()), 6)
