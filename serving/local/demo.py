"""`medserve demo`: the main job once, on real images with trained weights, over both fronts of the real server."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from serving.client import Client, GrpcClient
from serving.client.results import Answer, Classification, Segmentation
from serving.demonstration.draw import Pixels, draw
from serving.demonstration.labels import CARDIOMEGALY, DEVICE, LABELS
from serving.errors import SetupError
from serving.local import demo_picture
from serving.local.up import Say, Stack
from serving.settings import Settings

MR = "examples_overlay.dcm"
"""An abdominal MR that pydicom carries among its test files: 300 x 484, 16 bits."""
BOXES = {"liver": (48, 78, 184, 198), "kidney": (117, 187, 188, 252), "other kidney": (286, 194, 352, 255)}
RADIOGRAPH_SEED = 90_000_042
RADIOGRAPH_SHOWS = frozenset({CARDIOMEGALY, DEVICE})
VISUAL, CONTRASTIVE = "litemedsam", "synthetic-cxr-chexzero"


@dataclass(frozen=True)
class Timed:
    """One call. `seconds`: as the client saw it; `ended`: the monotonic clock when it had the answer."""

    name: str
    answer: Answer
    seconds: float
    ended: float


def run(settings: Settings, out: Path, say: Say) -> None:
    """Start, ask, print, draw, stop. Raises SetupError."""
    started = time.monotonic()
    with Stack(settings, say) as stack, Client(stack.http_url) as http, GrpcClient(stack.grpc_address) as grpc:
        mr, radiograph = _real_image(), draw(RADIOGRAPH_SEED, RADIOGRAPH_SHOWS).pixels
        calls = _visual(http, grpc, mr)
        first_mask_s = calls[0].ended - started
        calls += _text(http, grpc, radiograph)
        say("stopping")
    _print(calls)
    files = _draw(out, mr, radiograph, calls)
    say(f"first mask {first_mask_s:.1f} s after the start; wrote {' and '.join(str(file) for file in files)}")
    say("research use only, not a medical device; stay up with `make up`")


def _real_image() -> bytes:
    from pydicom.data import get_testdata_file

    path = get_testdata_file(MR, download=False)
    if path is None:
        raise SetupError(f"the demo's image {MR} is not in this pydicom: run `make setup`")
    return Path(str(path)).read_bytes()


def _visual(http: Client, grpc: GrpcClient, image: bytes) -> list[Timed]:
    boxes = list(BOXES.values())
    first = _timed("HTTP new image", lambda: http.segment(image, boxes=boxes, model=VISUAL))
    again = _timed("HTTP same image", lambda: http.segment(image, boxes=boxes, model=VISUAL))
    other = _timed("gRPC same image", lambda: grpc.segment(image, boxes=boxes, model=VISUAL))
    return [first, again, other]


def _text(http: Client, grpc: GrpcClient, radiograph: Pixels) -> list[Timed]:
    picture = _png(radiograph)
    labels = list(LABELS)
    first = _timed("HTTP labels", lambda: http.classify([picture], labels, model=CONTRASTIVE))
    other = _timed("gRPC labels", lambda: grpc.classify([picture], labels, model=CONTRASTIVE))
    return [first, other]


def _timed(name: str, call: Callable[[], Answer]) -> Timed:
    started = time.monotonic()
    answer = call()
    ended = time.monotonic()
    return Timed(name, answer, ended - started, ended)


def _png(pixels: Pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _print(calls: Sequence[Timed]) -> None:
    console = Console()
    for call in calls:
        if isinstance(call.answer, Segmentation):
            masks = zip(BOXES, call.answer.masks, strict=True)
            console.print(f"{call.name}: " + ", ".join(f"{name} {m.score:.3f} ({m.area_px} px)" for name, m in masks))
        if isinstance(call.answer, Classification):
            scores = zip(call.answer.labels, call.answer.scores[0], strict=True)
            mark = " [demonstration weights]" if call.answer.model.demonstration else ""
            console.print(f"{call.name}: " + ", ".join(f"{label} {score:.3f}" for label, score in scores) + mark, markup=False)
    console.print(_stage_table(calls))


def _stage_table(calls: Sequence[Timed]) -> Table:
    stages = list(dict.fromkeys(stage for call in calls for stage in call.answer.stages_ms))
    table = Table(title="Milliseconds by stage, and in all as the client saw it")
    table.add_column("", no_wrap=True)
    for call in calls:
        table.add_column(call.name, justify="right")
    for stage in stages:
        table.add_row(stage, *(f"{call.answer.stages_ms.get(stage, 0):.1f}" for call in calls))
    table.add_row("total", *(f"{call.seconds * 1000:.1f}" for call in calls), end_section=True)
    table.add_row("features", *(call.answer.features for call in calls))
    return table


def _draw(out: Path, mr: bytes, radiograph: Pixels, calls: Sequence[Timed]) -> tuple[Path, Path]:
    answers: dict[type, Any] = {type(call.answer): call.answer for call in reversed(calls)}
    found, scored = answers[Segmentation], answers[Classification]
    out.mkdir(parents=True, exist_ok=True)
    segmentation, classification = out / "segmentation.png", out / "classification.png"
    masks = [(name, BOXES[name], mask) for name, mask in zip(BOXES, found.masks, strict=True)]
    demo_picture.segmentation(segmentation, mr, masks)
    bars = list(zip(scored.labels, scored.scores[0].tolist(), strict=True))
    demo_picture.classification(classification, radiograph, bars, RADIOGRAPH_SHOWS)
    return segmentation, classification
