"""The engines called bare: in one process, without server, queue or wire. What the server's figures are compared with.

Everything is read from the record and the configuration of the built model, so that the same files run with the same precision
and as many threads as they are served with. The peers under `loadtests/peers` open the same engines through this module: it
needs no more than numpy, OpenVINO (ONNX Runtime) and cv2.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
SIDE_PX = 256
"""Side of LiteMedSAM's square frame."""
ONE_MASK = ("mask", "iou")
"""What a prompt that does not ask for several masks wants of the decoder."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class OpenVino:
    """One compiled model; `infer` gives its outputs by name. `hint`: the precision asked of the plugin.

    `outputs`: the graph is cut down to these, as the served engine is to what a request wants; all where none is named.
    """

    def __init__(self, path: Path, hint: str, threads: int, outputs: tuple[str, ...] = ()) -> None:
        import openvino as ov

        properties = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        model = ov.Core().read_model(str(path))
        if outputs:
            results = [one for one in model.get_results() if one.input_value(0).get_names() & set(outputs)]
            model = ov.Model(results, model.get_parameters(), "cut")
        self._compiled = ov.Core().compile_model(model, "CPU", properties)
        self._request = self._compiled.create_infer_request()
        self.inputs = [one.any_name for one in self._compiled.inputs]
        self.outputs = [one.any_name for one in self._compiled.outputs]

    def infer(self, given: Arrays) -> Arrays:
        """Run once. The arrays given back are the request's own until the next call: copy what must outlive it."""
        self._request.infer({name: given[name] for name in self.inputs}, share_inputs=True)
        return {name: self._request.get_tensor(name).data for name in self.outputs}


class OnnxRuntime:
    """One session; `infer` gives its outputs by name: those named, all where none is."""

    def __init__(self, path: Path, threads: int, outputs: tuple[str, ...] = ()) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self._session.get_inputs()]
        self.outputs = list(outputs) or [one.name for one in self._session.get_outputs()]

    def infer(self, given: Arrays) -> Arrays:
        """Run once."""
        values = self._session.run(self.outputs, {name: given[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))


Runner = OpenVino | OnnxRuntime


def open_engine(repository: Path, record: dict[str, Any], threads: int = 0, outputs: tuple[str, ...] = ()) -> Runner:
    """The engine of one record as the CPU profile runs it."""
    folder = repository / record["name"] / record["version"]
    threads = threads or cores()
    if (folder / "model.xml").exists():
        return OpenVino(folder / "model.xml", precision_hint(folder), threads, outputs)
    return OnnxRuntime(folder / "model.onnx", threads, outputs)


def precision_hint(folder: Path) -> str:
    """What the served engine asks of the plugin: the word in the file `precision` beside it, f32 where there is none."""
    path = folder / "precision"
    return path.read_text().strip() if path.exists() else "f32"


def read_record(repository: Path, model: str) -> dict[str, Any]:
    """`<model>.json`."""
    found: dict[str, Any] = json.loads((repository / f"{model}.json").read_text())
    return found


class Segmenter:
    """LiteMedSAM's two engines: `encode` once an image, `decode` once a prompt."""

    def __init__(self, repository: Path, model: str = "litemedsam", threads: int = 0) -> None:
        engines = read_record(repository, model)["engines"]
        self.records: dict[str, dict[str, Any]] = {part: found[0] for part, found in engines.items()}
        self.encoder = open_engine(repository, self.records["image_encoder"], threads)
        self.decoder = open_engine(repository, self.records["mask_decoder"], threads, ONE_MASK)

    def encode(self, tensor: npt.NDArray[np.float32]) -> Arrays:
        """(1, 3, 256, 256) float32, 0..1 -> the Features that the decoder takes."""
        return {name: np.array(value) for name, value in self.encoder.infer({"image": tensor}).items()}

    def decode(self, features: Arrays, points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Arrays:
        """Points (1, P, N, 2) of the 256 frame, labels (1, P, N) -> mask (1, P, 1, 256, 256) logits and iou (1, P, 1)."""
        return self.decoder.infer({**features, "points": points, "labels": labels})


def prepare(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    """(rows, columns) uint8 -> the encoder's (1, 3, 256, 256) float32, and (width, height) of the picture in it."""
    rows, columns = pixels.shape
    scale = SIDE_PX / max(rows, columns)
    content = int(columns * scale + 0.5), int(rows * scale + 0.5)
    small = cv2.resize(pixels, content, interpolation=cv2.INTER_AREA).astype(np.float64)
    low, high = float(small.min()), float(small.max())
    tensor = np.zeros((1, 3, SIDE_PX, SIDE_PX), np.float32)
    tensor[0, :, : content[1], : content[0]] = (small - low) / max(high - low, 1e-8)
    return tensor, content


def tokens(
    box: Iterable[float], points: Iterable[tuple[float, float, int]], side_px: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """A box and clicks in pixels of a picture whose longer side is `side_px` -> points (1, 1, N, 2) and labels (1, 1, N)."""
    ratio = SIDE_PX / side_px
    x0, y0, x1, y1 = (float(int(value * ratio)) for value in box)
    rows = [*((x * ratio, y * ratio, label) for x, y, label in points), (x0, y0, 2), (x1, y1, 3)]
    table = np.asarray(rows, np.float64)[None, None]
    return table[..., :2].astype(np.float32), table[..., 2].astype(np.int64)


def finish(logits: npt.NDArray[np.float32], content: tuple[int, int], size_px: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(256, 256) logits -> (rows, columns) bool of the picture, whose (width, height) is `size_px`."""
    cut = np.ascontiguousarray(logits[: content[1], : content[0]])
    return np.asarray(cv2.resize(cut, size_px, interpolation=cv2.INTER_LINEAR)) > 0


@dataclass(frozen=True)
class Stretch:
    """A measured stretch of bare calls: seconds of each, and of all together."""

    seconds: tuple[float, ...]
    wall_s: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.seconds) / self.wall_s


def repeat(call: Callable[[int], object], seconds: float, at_least: int = 3) -> Stretch:
    """Call with 0, 1, 2, ... one after the other for a while."""
    spent: list[float] = []
    began = time.perf_counter()
    while len(spent) < at_least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call(len(spent))
        spent.append(time.perf_counter() - start)
    return Stretch(tuple(spent), time.perf_counter() - began)
