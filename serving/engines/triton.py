"""Engines in a Triton server, by asynchronous gRPC with a deadline on every call."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as triton_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving import shm
from serving.domain.request import Deadline, Priority
from serving.engines.engine import EngineSpec, Tensors, TensorSpec
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 512 * 1024 * 1024
RETRY_AFTER_S = 2.0
REGION_IS_IN_USE = "currently in use"
REGION_IS_UNKNOWN = "Unable to find shared memory region"
PRIORITIES = {Priority.INTERACTIVE: 1, Priority.BULK: 2}
"""Triton's priority levels: 1 is the highest (ModelQueuePolicy, priority_levels)."""

CHANNEL = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A restarted server is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class SharedMemory(Protocol):
    """A region of /dev/shm in which some arrays lie (`embeddings.arena.Arena`)."""

    region: str
    nbytes: int

    def locate(self, array: npt.NDArray[Any]) -> int | None:
        """The array's offset in the region, or None where it lies elsewhere."""
        ...


class TritonServer:
    """One Triton server and one channel to it. The channel is made in the event loop that uses it first.

    `address`: host:port of the gRPC endpoint. `call_timeout_s`: no call waits longer, whatever its deadline. `memory`: inputs
    that lie in it are named to the server instead of being sent.
    """

    def __init__(self, address: str, call_timeout_s: float, memory: SharedMemory | None = None) -> None:
        self._address = address
        self.call_timeout_s = call_timeout_s
        self._client: Any = None
        self._memory = memory
        self._registration: asyncio.Task[None] | None = None

    @property
    def client(self) -> Any:
        """The asynchronous client."""
        if self._client is None:
            self._client = triton_grpc.InferenceServerClient(self._address, channel_args=CHANNEL)
        return self._client

    def engine(self, spec: EngineSpec, record: EngineRecord) -> TritonEngine:
        """The engine of a built record."""
        return TritonEngine(self, spec, record)

    async def ready(self) -> bool:
        """Whether the server takes requests."""
        return await self._ask(self.client.is_server_ready(client_timeout=self.call_timeout_s))

    async def model_ready(self, name: str, version: str = "") -> bool:
        """Whether one model version is loaded."""
        return await self._ask(self.client.is_model_ready(name, version, client_timeout=self.call_timeout_s))

    async def share(self) -> SharedMemory | None:
        """The memory once the server has mapped it; None where there is none, or the server cannot (another machine's)."""
        if self._memory is None:
            return None
        if self._registration is None or _came_to_nothing(self._registration):
            self._registration = asyncio.create_task(self._register(self._memory))
        await asyncio.shield(self._registration)
        return self._memory

    @property
    def registration(self) -> asyncio.Task[None] | None:
        """The registration under which the memory is shared now."""
        return self._registration

    def forgotten(self, registration: asyncio.Task[None] | None) -> None:
        """The server does not know this registration any more (it was restarted): register anew before the next use.

        A registration that was made since then stays.
        """
        if self._registration is registration:
            self._registration = None

    async def _register(self, memory: SharedMemory) -> None:
        """Register the region, and take those out whose owner is gone: their memory is held until then."""
        try:
            known = await self.client.get_system_shared_memory_status(client_timeout=self.call_timeout_s)
            for name in known.regions:
                if shm.owner_is_gone(name):
                    await self._forget_region(name)
            if memory.region in known.regions:
                return
            await self.client.register_system_shared_memory(
                memory.region, memory.region, memory.nbytes, client_timeout=self.call_timeout_s
            )
        except InferenceServerException as exc:
            if not _is_away(exc):
                log.warning("Triton cannot map the Features' memory, they are sent instead: %s", exc.message())
                self._memory = None
                return
            raise _unavailable() from exc

    async def _forget_region(self, name: str) -> None:
        """Take a dead owner's region out. One that a call still reads stays until the next replica comes."""
        try:
            await self.client.unregister_system_shared_memory(name, client_timeout=self.call_timeout_s)
        except InferenceServerException as exc:
            if REGION_IS_IN_USE not in exc.message():
                raise
            log.info("Triton still reads a dead replica's memory")

    async def _ask(self, question: Any) -> bool:
        try:
            return bool(await question)
        except (InferenceServerException, grpc.RpcError) as exc:
            log.debug("Triton does not answer: %s", type(exc).__name__)
            return False

    async def close(self) -> None:
        """Close the channel."""
        if self._client is not None:
            await self._client.close()
            self._client = None


class TritonEngine:
    """Implements `Engine` for one model version in Triton."""

    def __init__(self, server: TritonServer, spec: EngineSpec, record: EngineRecord) -> None:
        self.spec = spec
        self._server = server
        self._name = record.name
        self._version = record.version
        self._lead = 1 if spec.max_batch else 0
        self._inputs = {tensor.name: tensor for tensor in spec.inputs}
        self._outputs = {tensor.name: tensor for tensor in spec.outputs}

    async def infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        *,
        outputs: tuple[str, ...] = (),
        priority: Priority = Priority.INTERACTIVE,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run once and give the named outputs. Raises Fault as `Engine.infer` says."""
        left_s = deadline.check(f"engine {self._name}")
        wanted = outputs or tuple(self._outputs)
        memory, registration = None, None
        try:
            memory = await self._server.share()
            registration = self._server.registration
            result = await self._server.client.infer(
                self._name,
                [self._input(name, value, memory) for name, value in inputs.items()],
                model_version=self._version,
                outputs=[triton_grpc.InferRequestedOutput(name) for name in wanted],
                client_timeout=min(left_s, self._server.call_timeout_s),
                priority=PRIORITIES[priority],
            )
        except InferenceServerException as exc:
            if memory is not None and REGION_IS_UNKNOWN in exc.message():
                self._server.forgotten(registration)
                return await self.infer(inputs, deadline, outputs=outputs, priority=priority)
            raise self._fault(exc, deadline) from exc
        except asyncio.CancelledError:
            # A channel that dies cancels its calls: only a cancellation of this task is the caller's own.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _unavailable() from None
        return {name: self._output(name, result.as_numpy(name)) for name in wanted}

    def _input(self, name: str, value: npt.NDArray[Any], memory: SharedMemory | None) -> Any:
        spec = self._inputs.get(name)
        if spec is None or not self._fits(spec, value):
            log.error("engine %s: input %s has shape %s and dtype %s", self._name, name, value.shape, value.dtype)
            raise Fault(Kind.ENGINE_FAILED, "the engine was given tensors that it does not take")
        tensor = triton_grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        offset = memory.locate(value) if memory is not None else None
        if memory is None or offset is None:
            tensor.set_data_from_numpy(np.ascontiguousarray(value))
        else:
            tensor.set_shared_memory(memory.region, value.nbytes, offset=offset)
        return tensor

    def _output(self, name: str, value: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if value is None or not self._fits(self._outputs[name], value):
            found = "nothing" if value is None else f"shape {value.shape} and dtype {value.dtype}"
            log.error("engine %s: output %s has %s", self._name, name, found)
            raise Fault(Kind.ENGINE_FAILED, "the engine gave tensors that are not what it declares")
        return value

    def _fits(self, spec: TensorSpec, value: npt.NDArray[Any]) -> bool:
        shape = value.shape[self._lead :]
        same_rank = value.ndim == len(spec.shape) + self._lead
        return same_rank and value.dtype == spec.dtype and all(s in (-1, n) for s, n in zip(spec.shape, shape, strict=True))

    def _fault(self, exc: Any, deadline: Deadline) -> Fault:
        status = exc.status() or ""
        if "DEADLINE_EXCEEDED" in status:
            if deadline.remaining_s() <= 0.001:
                return Fault(Kind.DEADLINE, "the deadline passed inside the engine", param="deadline")
            return _unavailable()
        if _is_away(exc):
            return _unavailable()
        log.error("engine %s failed: %s", self._name, exc.message())
        return Fault(Kind.ENGINE_FAILED, "the engine failed on this request; the server's log has the details")


def _came_to_nothing(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _is_away(exc: Any) -> bool:
    status = exc.status() or ""
    return "UNAVAILABLE" in status or "CANCELLED" in status


def _unavailable() -> Fault:
    return Fault(
        Kind.ENGINE_UNAVAILABLE, "the engine's server is away and will be back: try again", retry_after_s=RETRY_AFTER_S
    )
