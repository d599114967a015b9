"""The start-up check: an array goes through the server and must come back, in the body and through shared memory.

nvidia-pytriton's Triton returns garbage or nothing, and no error, when its Python stub meets numpy 2: a server that fails
this check must not serve.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc
import tritonclient.utils.shared_memory as triton_shm
from tritonclient.utils import InferenceServerException

from serving import shm
from serving.errors import SetupError

MODEL = "medserve_echo"
CONFIG = f"""name: "{MODEL}"
backend: "python"
max_batch_size: 0
input [{{ name: "INPUT" data_type: TYPE_FP32 dims: [ -1 ] }}]
output [{{ name: "OUTPUT" data_type: TYPE_FP32 dims: [ -1 ] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
TIMEOUT_S = 20.0
IN_USE = "currently in use"
RELEASE_S = 5.0
"""Triton lets go of a region a moment after its answer has left."""


def write(repository: Path, source: Path) -> None:
    """Put the echo model into a repository of its own."""
    folder = repository / MODEL / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(source.read_text())
    (folder.parent / "config.pbtxt").write_text(CONFIG)


def check(address: str) -> None:
    """Echo through the body and through a registered region. Raises SetupError."""
    sent = np.random.default_rng(0).normal(size=4099).astype(np.float32)
    try:
        with triton_grpc.InferenceServerClient(address) as client:
            back = {"message body": _body(client, sent), "shared memory": _region(client, sent)}
    except (InferenceServerException, triton_shm.SharedMemoryException) as exc:
        raise SetupError(f"Triton's start-up check failed: {str(exc).splitlines()[0]}") from exc
    for way, got in back.items():
        if got is None or got.shape != sent.shape or not np.array_equal(got, sent):
            raise SetupError(
                f"Triton garbles arrays in the {way}: is numpy 2 installed? numpy below 2 is needed (`make setup`)"
            )


def _body(client: triton_grpc.InferenceServerClient, sent: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    tensor = triton_grpc.InferInput("INPUT", list(sent.shape), "FP32")
    tensor.set_data_from_numpy(sent)
    found: npt.NDArray[Any] | None = client.infer(MODEL, [tensor], client_timeout=TIMEOUT_S).as_numpy("OUTPUT")
    return found


def _region(client: triton_grpc.InferenceServerClient, sent: npt.NDArray[Any]) -> npt.NDArray[Any]:
    name = f"{shm.prefix()}echo_{os.urandom(4).hex()}"
    region = triton_shm.create_shared_memory_region(name, name, 2 * sent.nbytes)
    try:
        triton_shm.set_shared_memory_region(region, [sent])
        client.register_system_shared_memory(name, name, 2 * sent.nbytes)
        tensor = triton_grpc.InferInput("INPUT", list(sent.shape), "FP32")
        tensor.set_shared_memory(name, sent.nbytes)
        output = triton_grpc.InferRequestedOutput("OUTPUT")
        output.set_shared_memory(name, sent.nbytes, offset=sent.nbytes)
        client.infer(MODEL, [tensor], outputs=[output], client_timeout=TIMEOUT_S)
        found: npt.NDArray[Any] = triton_shm.get_contents_as_numpy(
            region, np.float32, list(sent.shape), offset=sent.nbytes
        ).copy()
        _unregister(client, name)
        return found
    finally:
        triton_shm.destroy_shared_memory_region(region)


def _unregister(client: triton_grpc.InferenceServerClient, name: str) -> None:
    until = time.monotonic() + RELEASE_S
    while True:
        try:
            client.unregister_system_shared_memory(name)
            return
        except InferenceServerException as exc:
            if IN_USE not in exc.message() or time.monotonic() > until:
                raise
            time.sleep(0.01)
