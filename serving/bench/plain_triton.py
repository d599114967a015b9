"""A plain Triton beside the product: the same engine files behind the same Python backend, called with tritonclient.

Used by S5 and by the peer of that name. The decoder's Features go by registered shared memory, or in the message.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc
import tritonclient.utils.shared_memory as triton_shm
from tritonclient.utils import np_to_triton_dtype

from serving import shm
from serving.bench import bare
from serving.bench.bare import Arrays
from serving.local.triton import EmbeddedTriton

MODELS = Path(__file__).parent / "triton_models"
TYPES = {"f32": "TYPE_FP32", "i64": "TYPE_INT64"}
ENCODER, DECODER, SINK = "image_encoder", "mask_decoder", "sink"
START_S = 120.0


def write_repository(folder: Path, repository: Path, model: str, threads: int) -> None:
    """Configurations and model files for the two engines of a built model, and the sink."""
    import openvino as ov

    records = bare.read_record(repository, model)["engines"]
    for name in (ENCODER, DECODER):
        record = records[name][0]
        path = (repository / record["name"] / record["version"] / "model.xml").resolve()
        graph = ov.Core().read_model(str(path))
        lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 0"]
        outputs = [one for one in graph.outputs if name == ENCODER or one.any_name in bare.ONE_MASK]
        for kind, tensors in (("input", graph.inputs), ("output", outputs)):
            rows = [
                f'{{ name: "{t.any_name}" data_type: {TYPES[t.element_type.get_type_name()]} dims: {_dims(t.partial_shape)} }}'
                for t in tensors
            ]
            lines.append(f"{kind} [ {', '.join(rows)} ]")
        said = {"path": path, "hint": bare.precision_hint(path.parent), "threads": threads or bare.cores()}
        lines += [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in said.items()]
        _write(folder / name, lines, MODELS / "openvino_model.py")
    sink = [f'name: "{SINK}"', 'backend: "python"', "max_batch_size: 0"]
    sink += ['input [ { name: "BODY" data_type: TYPE_UINT8 dims: [-1] } ]']
    sink += ['output [ { name: "LENGTH" data_type: TYPE_INT64 dims: [1] } ]']
    _write(folder / SINK, sink, MODELS / "sink_model.py")


def _dims(shape: Any) -> list[int]:
    return [int(d.get_length()) if d.is_static else -1 for d in shape]


def _write(folder: Path, lines: list[str], source: Path) -> None:
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "configs").mkdir(exist_ok=True)
    for path in (folder / "config.pbtxt", folder / "configs" / "cpu.pbtxt"):
        path.write_text("\n".join(lines) + "\n")
    shutil.copy(source, folder / "1" / "model.py")


class PlainTriton:
    """Started for its block. `address`: of its gRPC endpoint; `pid`: of its server."""

    def __init__(self, repository: Path, model: str = "litemedsam", threads: int = 0) -> None:
        self._work = Path(tempfile.mkdtemp(prefix="bench-triton-"))
        write_repository(self._work / "models", repository, model, threads)
        names = (ENCODER, DECODER, SINK)
        self._triton = EmbeddedTriton(self._work / "models", names, self._work / "run", start_timeout_s=START_S)

    @property
    def address(self) -> str:
        """host:port."""
        return self._triton.grpc_address

    @property
    def pid(self) -> int:
        """The server's."""
        return self._triton.pid

    def __enter__(self) -> PlainTriton:
        (self._work / "run").mkdir(exist_ok=True)
        self._triton.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._triton.stop()
        shutil.rmtree(self._work, ignore_errors=True)


class Caller:
    """The same calls that the product makes, with tritonclient. Blocking, for one thread.

    `place` registers an image's Features as shared memory; `decode` names them, or sends them where they are arrays.
    """

    def __init__(self, address: str, label: str = "bench") -> None:
        self._client = triton_grpc.InferenceServerClient(address)
        self._label = label
        self._numbers = count()
        self._regions: list[tuple[str, Any]] = []

    def encode(self, tensor: npt.NDArray[np.float32]) -> Arrays:
        """Every output of the encoder, in the message."""
        result = self._client.infer(ENCODER, [sent("image", tensor)])
        return {each.name: result.as_numpy(each.name) for each in result.get_response().outputs}

    def place(self, features: Arrays) -> list[Any]:
        """Inputs of the decoder that lie in a registered region."""
        name = f"{shm.prefix()}{self._label}{next(self._numbers)}"
        total = sum(value.nbytes for value in features.values())
        region = triton_shm.create_shared_memory_region(name, f"/{name}", total)
        self._regions.append((name, region))
        self._client.register_system_shared_memory(name, f"/{name}", total)
        inputs, offset = [], 0
        for key, value in features.items():
            triton_shm.set_shared_memory_region(region, [np.ascontiguousarray(value)], offset=offset)
            tensor = triton_grpc.InferInput(key, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_shared_memory(name, value.nbytes, offset=offset)
            inputs.append(tensor)
            offset += value.nbytes
        return inputs

    def decode(
        self, placed: list[Any], points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits (1, P, 1, 256, 256). `placed`: of `place`, or of `sent`."""
        outputs = [triton_grpc.InferRequestedOutput(name) for name in bare.ONE_MASK]
        result = self._client.infer(DECODER, [*placed, *self.sent({"points": points, "labels": labels})], outputs=outputs)
        found: npt.NDArray[np.float32] = result.as_numpy("mask")
        return found

    def sent(self, features: Arrays) -> list[Any]:
        """Inputs of the decoder that travel in the message."""
        return [sent(name, value) for name, value in features.items()]

    def sink(self, body: npt.NDArray[np.uint8]) -> int:
        """Bring bytes into Triton."""
        return int(self._client.infer(SINK, [sent("BODY", body)]).as_numpy("LENGTH")[0])

    def forget(self) -> None:
        """Unregister and remove the regions."""
        while self._regions:
            name, region = self._regions.pop()
            self._client.unregister_system_shared_memory(name)
            triton_shm.destroy_shared_memory_region(region)

    def close(self) -> None:
        """Forget the regions and hang up."""
        self.forget()
        self._client.close()


def sent(name: str, value: npt.NDArray[Any]) -> Any:
    """An input that travels in the message."""
    tensor = triton_grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(value))
    return tensor
