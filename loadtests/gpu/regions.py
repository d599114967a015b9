"""Tensors in messages and in regions of shared memory, and regions that are known to a server for a block."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as triton_shm

from serving import shm
from serving.engines.memory import Memory

TIMEOUT_S = 60.0
RELEASE_S = 0.2
"""The server lets go of a region a moment after its answer."""


def sent(name: str, value: Any) -> Any:
    """An input in the message: int64, or float32."""
    tensor = triton_grpc.InferInput(name, list(value.shape), "INT64" if value.dtype == np.int64 else "FP32")
    tensor.set_data_from_numpy(value)
    return tensor


def at(name: str, shape: tuple[int, ...], place: tuple[str, int, int]) -> Any:
    """A float32 input in a region. `place`: region, offset, bytes."""
    region, offset, nbytes = place
    tensor = triton_grpc.InferInput(name, list(shape), "FP32")
    tensor.set_shared_memory(region, nbytes, offset)
    return tensor


class Answers:
    """A region of system shared memory for masks."""

    def __init__(self, client: Any, nbytes: int) -> None:
        self._client, self._nbytes = client, nbytes
        self.region = f"{shm.prefix()}answers"
        self._handle: Any = None

    def __enter__(self) -> Answers:
        self._handle = triton_shm.create_shared_memory_region(self.region, self.region, self._nbytes)
        self._client.register_system_shared_memory(self.region, self.region, self._nbytes)
        return self

    def __exit__(self, *exc: object) -> None:
        time.sleep(RELEASE_S)
        self._client.unregister_system_shared_memory(self.region)
        triton_shm.destroy_shared_memory_region(self._handle)


class Regions:
    """The arena's region, registered through the project's `Memory` for the block."""

    def __init__(self, address: str, memory: Memory, region: str) -> None:
        self._address, self._memory, self._region = address, memory, region

    def __enter__(self) -> Regions:
        asyncio.run(self._ask("register"))
        return self

    def __exit__(self, *exc: object) -> None:
        time.sleep(RELEASE_S)
        asyncio.run(self._ask("unregister"))

    async def _ask(self, what: str) -> None:
        async with triton_aio.InferenceServerClient(self._address) as client:
            await getattr(self._memory, what)(client, self._region, TIMEOUT_S)
