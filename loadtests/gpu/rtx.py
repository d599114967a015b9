"""TensorRT-RTX on this GPU: whether its plans run, how far they are from PyTorch at float32, the gate, the rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from loadtests.gpu import items, lowered, nets, shapes, skeleton
from loadtests.gpu.clock import graphed, times_ms
from loadtests.gpu.plan import Plan
from loadtests.gpu.report import Report
from loadtests.gpu.torch_bench import verdict
from serving.build import bf16, gate, tensorrt
from serving.build.nets.sam import BOTTOM_RIGHT, TOP_LEFT
from serving.build.nets.sam_parts import Click, Encode
from serving.engines.engine import EngineSpec, TensorSpec

FEATURES = ("x0", "k0", "v0", "q0")
Near = Callable[[Plan, Path], dict[str, float]]


def run(report: Report, folder: Path, small: bool) -> None:
    """All of it; without a GPU only the building."""
    lowered.tf32(False)
    builder = tensorrt.installed(("tensorrt_rtx",))
    report.section("rtx.version", lambda: builder.version)
    gpu = torch.cuda.is_available()
    report.section("rtx.smallest", lambda: smallest(builder, gpu))
    for level in ("bf16", "f32"):
        report.section(f"rtx.decoder.{level}", lambda p=level: decoder(builder, folder, p, gpu), 20)
    for level in ("bf16", "bf16-projections", "f32") if not small else ():
        said = (builder, folder, "image_encoder", level, gpu, encoder_off, (1, 4, 64))
        report.section(f"rtx.encoder.{level}", lambda said=said: tower(*said), 20)
    report.section("rtx.gate", lambda: judged(builder, folder, gpu), 20)
    for level in ("bf16", "f32") if not small else ():
        said = (builder, folder, "clip_image_encoder", level, gpu, clip_cosine, (1, 64, 256))
        report.section(f"rtx.clip.{level}", lambda said=said: tower(*said), 20)


def smallest(builder: tensorrt.Builder, gpu: bool) -> dict[str, Any]:
    """One product and a ReLU: whether anything runs here at all."""
    weight = onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32) * 2, "w")
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", 64])  # noqa: E731
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Relu", ["h"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "smallest", [value("x")], [value("y")], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    spec = EngineSpec("smallest", (TensorSpec("x", "float32", (64,)),), (TensorSpec("y", "float32", (64,)),), max_batch=8)
    plan = tensorrt.build(builder, model.SerializeToString(), spec)
    if not gpu:
        return {"bytes": len(plan)}
    given = torch.randn(4, 64, device="cuda")
    made = Plan(builder, plan)(x=given)["y"]
    torch.cuda.synchronize()
    return {"bytes": len(plan), "max_abs": float((made - (2 * given).relu()).abs().max())}


def decoder(builder: tensorrt.Builder, folder: Path, level: str, gpu: bool) -> dict[str, Any]:
    """LiteMedSAM's folded decoder: parity on boxes, then rates by their number. All four outputs are made."""
    plan, found = _built(builder, folder, "mask_decoder", level)
    if not gpu:
        return found
    run, found = _loaded(builder, plan, found)
    model = nets.lite(folder / "lite_medsam.pth")
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        features = dict(
            zip(FEATURES, (v.cuda() for v in Encode(model)(torch.rand(1, 3, 256, 256, generator=generator))), strict=True)
        )
        stock = Click(model).cuda().eval()
        for prompts in (1, 16, 64):
            corner = 150 * torch.rand(1, prompts, 1, 2, generator=generator)
            points = torch.cat([corner, corner + 80], dim=2).cuda()
            labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT]).expand(1, prompts, 2).contiguous().cuda()
            made = run(**features, points=points, labels=labels)
            torch.cuda.synchronize()
            found[f"P={prompts} mask off by, of scale"] = _off(stock(*features.values(), points, labels)[0], made["mask"])
            timed = _timed(lambda p=points, n=labels: run(**features, points=p, labels=n), found)
            found[f"P={prompts}"] = {**timed, "prompts_s": round(1e3 * prompts / timed["each_ms"])}
    return found


def tower(
    builder: tensorrt.Builder, folder: Path, part: str, level: str, gpu: bool, near: Near, batches: tuple[int, ...]
) -> dict[str, Any]:
    """An encoder of images: `near`, how far the plan is from PyTorch at float32; then rates by batch."""
    plan, found = _built(builder, folder, part, level)
    if not gpu:
        return found
    run, found = _loaded(builder, plan, found)
    (given,) = shapes.SPECS[part].inputs
    with torch.inference_mode():
        found |= near(run, folder)
        for batch in batches:
            images = {given.name: torch.rand(batch, *given.shape, device="cuda")}
            timed = _timed(lambda x=images: run(**x), found)
            found[f"batch {batch}"] = {**timed, "images_s": round(1e3 * batch / timed["each_ms"], 1)}
    return found


def encoder_off(run: Plan, folder: Path) -> dict[str, float]:
    """LiteMedSAM's, on a gate's image: the largest difference of `x0`."""
    image = torch.from_numpy(items.load(folder / "gate.npz")[0].given.tensor).cuda()
    wanted = Encode(nets.lite(folder / "lite_medsam.pth")).cuda().eval()(image)
    return {"x0 off by, of scale": _off(wanted[0], run(image=image)["x0"])}


def clip_cosine(run: Plan, folder: Path) -> dict[str, float]:
    """CLIP ViT-B/32's, whose weights are drawn, on drawn images: the least cosine."""
    images = torch.rand(64, 3, 224, 224, device="cuda")
    wanted = nets.clip_b32().image_encoder.cuda().eval()(images)
    made = run(pixels=images)["embedding"]
    return {"cosine_min": round(float(torch.nn.functional.cosine_similarity(wanted, made).min()), 6)}


def judged(builder: tensorrt.Builder, folder: Path, gpu: bool) -> dict[str, Any]:
    """The gate's 120 prompts: encoder and decoder as plans against PyTorch at float32."""
    if not gpu:
        return {}
    given = items.load(folder / "gate.npz")
    plans = {}
    for part in ("image_encoder", "mask_decoder"):
        for level in ("f32", "bf16"):
            plans[part, level] = Plan(builder, _built(builder, folder, part, level)[0])
    model = nets.lite(folder / "lite_medsam.pth")
    encode, click = Encode(model).cuda().eval(), Click(model).cuda().eval()

    def masks(which: tuple[str, str] | None) -> list[gate.Masks]:
        found = []
        for item in given:
            image = torch.from_numpy(item.given.tensor).cuda()
            if which is None:
                features = dict(zip(FEATURES, encode(image), strict=True))
            else:
                made = plans["image_encoder", which[0]](image=image)
                features = {name: made[name] for name in FEATURES}
            found.append(gate.masks(item, features, lambda arrays: {"mask": _decoded(which, arrays)}))
        return found

    def _decoded(which: tuple[str, str] | None, arrays: dict[str, Any]) -> Any:
        on = {name: torch.as_tensor(value, device="cuda") for name, value in arrays.items()}
        made = click(*on.values())[0] if which is None else plans["mask_decoder", which[1]](**on)["mask"]
        return made.cpu().numpy()

    with torch.inference_mode():
        wanted = masks(None)
        pairs = (("f32", "f32"), ("f32", "bf16"), ("bf16", "f32"), ("bf16", "bf16"))
        return {f"encoder {pair[0]}, decoder {pair[1]}": verdict(wanted, masks(pair)) for pair in pairs}


def _built(builder: tensorrt.Builder, folder: Path, part: str, level: str) -> tuple[bytes, dict[str, Any]]:
    """The plan of a part's graph, and how long it took. Built anew at each call: a second each."""
    model = skeleton.filled(onnx.load(folder / f"{part}.onnx"), _holder(folder, part).state_dict())
    start = time.monotonic()
    if level != "f32":
        model = bf16.to_bf16(model, projections=level.endswith("projections"))
    lowered_s = time.monotonic() - start
    start = time.monotonic()
    plan = tensorrt.build(builder, model.SerializeToString(), shapes.SPECS[part], shapes.PROFILES[part])
    return plan, {"bytes": len(plan), "lowered_s": round(lowered_s, 1), "built_s": round(time.monotonic() - start, 1)}


def _holder(folder: Path, part: str) -> torch.nn.Module:
    """The module whose weights the graph is without, as `prepare` took them."""
    if part.startswith("clip"):
        return nets.clip_b32().image_encoder
    model = nets.lite(folder / "lite_medsam.pth")
    return Encode(model) if part == "image_encoder" else Click(model)


def _loaded(builder: tensorrt.Builder, plan: bytes, found: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    start = time.monotonic()
    run = Plan(builder, plan)
    return run, {**found, "loaded_s": round(time.monotonic() - start, 1)}


def _timed(call: Any, found: dict[str, Any]) -> dict[str, float]:
    """As a CUDA graph where the plan lets itself be captured."""
    start = time.monotonic()
    call()
    torch.cuda.synchronize()
    first_s = round(time.monotonic() - start, 2)
    try:
        replay, _ = graphed(call, "cuda")
        return {**times_ms(replay, "cuda"), "first_s": first_s, "graph": True}
    except Exception as exc:  # not to be captured: measured call by call
        torch.cuda.synchronize()
        found["not captured"] = f"{type(exc).__name__}: {exc}"[:300]
        return {**times_ms(call, "cuda"), "first_s": first_s, "graph": False}


def _off(wanted: Tensor, made: Tensor) -> float:
    return float(f"{float((wanted - made).abs().max() / wanted.abs().max()):.2e}")
