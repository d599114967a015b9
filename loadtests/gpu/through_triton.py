"""The networks behind a real Triton: latency at batch 1, prompts in batches, Features in system against CUDA shared memory.

The arena, its slots and its regions are the project's own (`embeddings.arena`, `engines.memory`); the server is the embedded
one (`local.triton`), whose models here run PyTorch on the GPU.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc

from loadtests.gpu import served
from loadtests.gpu.regions import TIMEOUT_S, Answers, Regions, at, sent
from loadtests.gpu.report import Report
from serving import shm, slots
from serving.embeddings import arena
from serving.engines.memory import CudaMemory, SystemMemory
from serving.local import echo
from serving.local.triton import EmbeddedTriton

FORMS = {"lite_encoder": "bf16", "lite_decoder": "bf16", "sam_vit_b_encoder": "bf16", "clip_b32_encoder": "bf16"}
ARENA_SLOTS = 4
MASK_BYTES = 4 * 256 * 256
MOST_PROMPTS = 64
BOX = ([60.0, 60.0], [190.0, 190.0])

Place = Callable[[str], tuple[str, int, int]]
"""Tensor -> region, offset, bytes."""


def run(report: Report, folder: Path, device: str, small: bool) -> None:
    """Start the server, measure, stop it."""
    with tempfile.TemporaryDirectory(prefix="medserve-gpu-") as work:
        forms = {name: form for name, form in FORMS.items() if not small or name.startswith("lite")}
        if device == "cpu":
            forms = dict.fromkeys(forms, "f32")
        models = served.repository(Path(work) / "models", folder, forms, device)
        sizes = [4 * int(np.prod(shape)) for shape in served.FEATURES.values()]
        *starts, slot_bytes = slots.offsets(sizes)
        region = arena.create("gpu", ARENA_SLOTS * slot_bytes, slot_bytes)
        (Path(work) / "run").mkdir()
        server = EmbeddedTriton(Path(work) / "models", models, Path(work) / "run", start_timeout_s=150, arena=region)
        try:
            server.start()
            report.section("triton.echo", lambda: echo.check(server.grpc_address) or "arrays come back as they went")
            _measure(
                report,
                server.grpc_address,
                region,
                dict(zip(served.FEATURES, zip(starts, sizes, strict=True), strict=True)),
                small,
                device,
            )
        finally:
            server.stop()
            (shm.ROOT / region).unlink(missing_ok=True)
            print(server.log_path.read_text(errors="replace")[-6000:] if server.log_path.exists() else "no log", flush=True)


def _measure(report: Report, address: str, region: str, tensors: dict[str, tuple[int, int]], small: bool, device: str) -> None:
    node = arena.Arena(region)
    slot = node.claim("0" * 64)
    assert isinstance(slot, shm.Slot)

    def place(name: str) -> tuple[str, int, int]:
        start, nbytes = tensors[name]
        return region, slot.offset + start, nbytes

    with triton_grpc.InferenceServerClient(address) as client, Answers(client, MOST_PROMPTS * MASK_BYTES) as answers:
        with Regions(address, SystemMemory(node.nbytes), region):
            report.section("triton.system", lambda: _features(client, place, answers, small))
        if device != "cpu":

            def cuda() -> Any:
                name = f"{shm.prefix()}cuda"
                memory = CudaMemory(name, node.nbytes)
                try:
                    with Regions(address, memory, name):
                        return _features(client, lambda tensor: (name, *place(tensor)[1:]), answers, small)
                finally:
                    memory.close()

            report.section("triton.cuda", cuda)
        if not small:
            report.section("triton.clip", lambda: _clip(client))
            report.section("triton.sam_vit_b", lambda: _encode(client, "sam_vit_b_encoder", 1024, place_none, (1, 8)))
    node.close()


def _features(client: Any, place: Place, answers: Answers, small: bool) -> dict[str, Any]:
    """Encode into a slot, decode from it: masks in the answer's body and in a region of shared memory."""
    found = _encode(client, "lite_encoder", 256, place, (1,))
    for prompts in (1,) if small else (1, 16, MOST_PROMPTS):
        for where in ("body", "region"):
            out = answers if where == "region" else None
            inputs = [at(name, (1, *served.FEATURES[name]), place(name)) for name in served.FEATURES]
            boxes = np.tile(np.array(BOX, np.float32), (1, prompts, 1, 1))
            boxes += np.arange(prompts, dtype=np.float32).reshape(1, -1, 1, 1) / 2
            inputs += [sent("points", boxes), sent("labels", np.tile(np.array([2, 3]), (1, prompts, 1)))]
            timed = _p50(lambda i=inputs, o=out: _decode(client, i, o), 1.0)
            found[f"decode P={prompts}, masks in {where}"] = {**timed, "prompts_s": round(1e3 * prompts / timed["p50_ms"])}
    found["mask pixels"] = int((_decode(client, inputs, None).as_numpy("mask") > 0).sum())
    return found


def _decode(client: Any, inputs: list[Any], answers: Answers | None) -> Any:
    mask, iou = triton_grpc.InferRequestedOutput("mask"), triton_grpc.InferRequestedOutput("iou")
    if answers is not None:
        mask.set_shared_memory(answers.region, inputs[-1].shape()[1] * MASK_BYTES)
    return client.infer("lite_decoder", inputs, outputs=[mask, iou], client_timeout=TIMEOUT_S)


def place_none(name: str) -> tuple[str, int, int]:
    """Features come back in the body: none of one image are kept."""
    raise LookupError(name)


def _encode(client: Any, model: str, side: int, place: Place, batches: tuple[int, ...]) -> dict[str, Any]:
    """An image in the body; of Features in no slot only the smallest is asked for."""
    found = {}
    for batch in batches:
        image = np.random.default_rng(0).random((batch, 3, side, side), np.float32)
        outputs = []
        for name in served.FEATURES:
            try:
                region, offset, nbytes = place(name)
            except LookupError:
                continue
            out = triton_grpc.InferRequestedOutput(name)
            out.set_shared_memory(region, nbytes, offset)
            outputs.append(out)
        outputs = outputs or [triton_grpc.InferRequestedOutput("k0")]
        inputs = [sent("image", image)]
        timed = _p50(lambda i=inputs, o=outputs: client.infer(model, i, outputs=o, client_timeout=TIMEOUT_S), 1.5)
        found[f"encode batch {batch}"] = {**timed, "images_s": round(1e3 * batch / timed["p50_ms"], 1)}
    return found


def _clip(client: Any) -> dict[str, Any]:
    found = {}
    for batch in (1, 8, 64, 256):
        inputs = [sent("pixels", np.random.default_rng(0).random((batch, 3, 224, 224), np.float32))]
        timed = _p50(lambda i=inputs: client.infer("clip_b32_encoder", i, client_timeout=TIMEOUT_S), 1.0)
        found[f"batch {batch}"] = {**timed, "images_s": round(1e3 * batch / timed["p50_ms"], 1)}
    return found


def _p50(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Median and 95th percentile of single calls, one after another."""
    for _ in range(4):
        call()
    spent: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(spent) < 5:
        start = time.perf_counter()
        call()
        spent.append(1e3 * (time.perf_counter() - start))
    return {
        "p50_ms": round(statistics.median(spent), 3),
        "p95_ms": round(sorted(spent)[int(0.95 * len(spent))], 3),
        "calls": len(spent),
    }
