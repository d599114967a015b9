"""Engines in a Triton server, by asynchronous gRPC with a deadline on every call."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as triton_grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from serving import shm, slots
from serving.domain.request import Deadline, Priority
from serving.engines import triton_message
from serving.engines.engine import EngineSpec, Tensors, TensorSpec, Timing, ignore
from serving.engines.memory import Memory, SystemMemory
from serving.engines.outbox import Outbox
from serving.engines.triton_message import Place
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord
from serving.telemetry import tracing

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 512 * 1024 * 1024
RETRY_AFTER_S = 2.0
SLOT = "slot"
"""The input, and the encoder's output, that names a slot: (1, 2) int64, index and generation."""
FEATURES_ARE_GONE = "features are gone"
QUEUE_IS_FULL = "Exceeds maximum queue size"
WAITED_TOO_LONG = "Request timeout expired"
REGION_IS_IN_USE = "currently in use"
REGION_IS_UNKNOWN = "Unable to find shared memory region"
KEY_HEADER = "triton-grpc-protocol-medserve-key"
"""The header of `--grpc-restricted-protocol=...:medserve-key=VALUE`: Triton puts a prefix before the key's name."""

CHANNEL = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A restarted server is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class TritonServer:
    """One Triton server and one channel to it. The channel is made in the event loop that uses it first.

    `address`: host:port of the gRPC endpoint. `call_timeout_s`: no call waits longer, whatever its deadline. `region_bytes`:
    size of the Features arena, for engines that take Features as tensors; it is mapped when the first of them is called.
    `memory`: where the arena lies, /dev/shm unless said. `key`: what the server asks for before it maps shared memory, if it
    asks (`KEY_HEADER`).
    """

    def __init__(
        self, address: str, call_timeout_s: float, region_bytes: int = 0, key: str = "", memory: Memory | None = None
    ) -> None:
        self._address = address
        self.call_timeout_s = call_timeout_s
        self._client: Any = None
        self._channel: Any = None
        self._stub: Any = None
        headers = {KEY_HEADER: key} if key else None
        self._memory: Memory = memory or SystemMemory(region_bytes, headers)
        self._registration: asyncio.Task[None] | None = None
        self.outbox = Outbox(headers)

    @property
    def client(self) -> Any:
        """The asynchronous client."""
        if self._client is None:
            self._client = triton_grpc.InferenceServerClient(self._address, channel_args=CHANNEL)
        return self._client

    async def model_infer(self, message: Any, timeout_s: float, trace: str = "") -> Any:
        """Send one `ModelInferRequest`, give the `ModelInferResponse`. Raises InferenceServerException.

        `trace`: the `traceparent` that Triton's spans belong to, or empty.

        The call ends with this coroutine: one that is cancelled, or whose time is over, is taken back from the server.
        """
        if self._stub is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL)
            self._stub = GRPCInferenceServiceStub(self._channel)
        try:
            return await self._stub.ModelInfer(
                message, timeout=timeout_s, metadata=(("traceparent", trace),) if trace else None
            )
        except grpc.RpcError as exc:
            raise InferenceServerException(exc.details() or "", str(exc.code())) from None

    def engine(self, spec: EngineSpec, record: EngineRecord) -> TritonEngine:
        """The engine of a built record."""
        return TritonEngine(self, spec, record)

    async def ready(self) -> bool:
        """Whether the server takes requests."""
        return await self._ask(self.client.is_server_ready(client_timeout=self.call_timeout_s))

    async def model_ready(self, name: str, version: str = "") -> bool:
        """Whether one model version is loaded."""
        return await self._ask(self.client.is_model_ready(name, version, client_timeout=self.call_timeout_s))

    async def share(self, region: str) -> asyncio.Task[None]:
        """Wait until the server has mapped the arena's region. Gives the registration, which `forgotten` takes back."""
        if self._registration is None or _came_to_nothing(self._registration):
            self._registration = asyncio.create_task(self._register(region))
        registration = self._registration
        await asyncio.wait({registration})  # a caller that leaves does not take it along
        registration.result()
        return registration

    def forgotten(self, registration: asyncio.Task[None]) -> None:
        """The server does not know this registration any more (it was restarted): register anew before the next use.

        A registration that was made since then stays.
        """
        if self._registration is registration:
            self._registration = None

    async def remembers(self, region: str, note: str) -> bool:
        """Whether `note` was given this note about the region since the server started. False where it cannot say."""
        try:
            return _noted(region, note) in await self._memory.known(self.client, self.call_timeout_s)
        except InferenceServerException as exc:
            log.debug("Triton does not say what it has mapped: %s", exc.status())
            return False

    async def note(self, region: str, note: str) -> None:
        """Have the server remember something for as long as it lives. Where it cannot, nobody is told."""
        try:
            await self._memory.note(self.client, _noted(region, note), self.call_timeout_s)
        except InferenceServerException as exc:
            log.info("Triton takes no note: %s", exc.message())

    async def _register(self, region: str) -> None:
        """Register the region, and take those out whose owner is gone: their memory is held until then."""
        try:
            known = await self._memory.known(self.client, self.call_timeout_s)
            for name in known:
                if shm.owner_is_gone(name):
                    await self._forget_region(name)
            if region not in known:
                await self._memory.register(self.client, region, self.call_timeout_s)
        except InferenceServerException as exc:
            if _is_away(exc):
                raise _unavailable() from exc
            log.error("Triton cannot map the Features arena: is it on this node? %s", exc.message())
            raise Fault(Kind.ENGINE_FAILED, "the engine's server does not share this node's memory") from exc

    async def _forget_region(self, name: str) -> None:
        """Take a dead owner's region out. One that a call still reads stays until the next replica comes."""
        try:
            await self._memory.unregister(self.client, name, self.call_timeout_s)
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
        """Close the channels, and give the memory for answers back."""
        self.outbox.close()
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stub = None
        if self._client is not None:
            await self._client.close()
            self._client = None


class TritonEngine:
    """Implements `Engine` for one model version in Triton.

    Features go by the name of their slot to the Python-based backends (record.features "slot"), or as tensors at an offset of
    the registered region to native ones ("region").
    """

    def __init__(self, server: TritonServer, spec: EngineSpec, record: EngineRecord) -> None:
        self.spec = spec
        self._server = server
        self._name = record.name
        self._version = record.version
        self._by_region = record.features == "region"
        self._inputs = {tensor.name: tensor for tensor in spec.inputs}
        self._outputs = {tensor.name: tensor for tensor in spec.outputs}

    async def infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        *,
        outputs: tuple[str, ...] = (),
        priority: Priority = Priority.INTERACTIVE,
        slot: shm.Slot | None = None,
        timing: Timing = ignore,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run once and give the named outputs. Raises Fault as `Engine.infer` says."""
        sent = time.monotonic()
        try:
            with tracing.span("engine", engine=self._name):
                made = await self._call(inputs, deadline, outputs, slot)
        except BaseException:
            self._quarantine(slot)
            raise
        timing(0.0, time.monotonic() - sent)
        return made

    async def _call(
        self, inputs: Tensors, deadline: Deadline, outputs: tuple[str, ...], slot: shm.Slot | None
    ) -> dict[str, npt.NDArray[Any]]:
        left_s = min(deadline.check(f"engine {self._name}"), self._server.call_timeout_s)
        wanted = outputs or tuple(self._outputs)
        registration = None
        outbox, laid, answered = self._server.outbox, list[Place](), False
        if slot is not None and not self._by_region:
            laid = await outbox.lay(self._answers(inputs, wanted), self._server.client, left_s)
        try:
            if self._by_region and slot is not None:
                registration = await self._server.share(slot.region)
            message = self._message(inputs, wanted, slot, left_s, laid)
            response = await self._server.model_infer(message, left_s, tracing.handed_on())
            answered = True
            made = triton_message.outputs(response) | outbox.read(response, laid)
        except InferenceServerException as exc:
            if (registration is not None or laid) and REGION_IS_UNKNOWN in exc.message():
                outbox.forgotten()
                if registration is not None:
                    self._server.forgotten(registration)
                return await self._call(inputs, deadline, outputs, slot)
            raise self._fault(exc, deadline) from exc
        except asyncio.CancelledError:
            # A channel that dies cancels its calls: only a cancellation of this task is the caller's own.
            if _asked_to_stop():
                raise
            raise _unavailable() from None
        finally:
            outbox.give_back(laid, 0.0 if answered else self._server.call_timeout_s)
        return {name: self._output(name, made.get(name)) for name in wanted}

    def _answers(self, inputs: Tensors, wanted: tuple[str, ...]) -> list[TensorSpec]:
        """The tensors that will come back, where the inputs tell their shapes; empty where not."""
        axis = self.spec.join
        specs = [self._outputs[name] for name in wanted]
        if axis is None or not all(spec.shape.count(-1) == 1 == -spec.shape[axis - 1] for spec in specs):
            return []
        rows = next(iter(inputs.values())).shape[axis]
        return [replace(spec, shape=tuple(rows if side == -1 else side for side in spec.shape)) for spec in specs]

    def _message(
        self, inputs: Tensors, wanted: tuple[str, ...], slot: shm.Slot | None, left_s: float, laid: list[Place]
    ) -> Any:
        """The whole call. Features go by the slot's name, or by their places in the region; `laid`: places of the answers."""
        sent = [(name, self._input(name, value)) for name, value in inputs.items()]
        reads: list[Place] = []
        writes: list[Place] = []
        if slot is not None and self._by_region:
            reads, writes = _places(self.spec.reads, slot), _places(self.spec.writes, slot)
        elif slot is not None:
            sent.insert(0, (SLOT, np.array([[slot.index, slot.generation]], np.int64)))
            wanted = (SLOT, *wanted) if self.spec.writes else wanted
        if laid:
            writes, wanted = [*writes, *laid], ()
        return triton_message.request(
            self._name, self._version, sent, wanted, reads=reads, writes=writes, timeout_us=int(left_s * 1e6)
        )

    def _quarantine(self, slot: shm.Slot | None) -> None:
        """A native backend may still work in a slot whose call was given up: it stays pinned for as long as a call may take.

        The Python-based backends pin their slots themselves.
        """
        if self._by_region and slot is not None:
            asyncio.get_running_loop().call_later(self._server.call_timeout_s, lambda held: None, slot)

    def _input(self, name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        spec = self._inputs.get(name)
        if spec is None or not _fits(spec, value):
            log.error("engine %s: input %s has shape %s and dtype %s", self._name, name, value.shape, value.dtype)
            raise Fault(Kind.ENGINE_FAILED, "the engine was given tensors that it does not take")
        return value

    def _output(self, name: str, value: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if value is None or not _fits(self._outputs[name], value):
            found = "nothing" if value is None else f"shape {value.shape} and dtype {value.dtype}"
            log.error("engine %s: output %s has %s", self._name, name, found)
            raise Fault(Kind.ENGINE_FAILED, "the engine gave tensors that are not what it declares")
        return value

    def _fault(self, exc: Any, deadline: Deadline) -> Fault:
        status, message = exc.status() or "", exc.message() or ""
        if QUEUE_IS_FULL in message:
            return Fault(Kind.POOL_FULL, "the engine's queue is full: try again later", retry_after_s=RETRY_AFTER_S)
        if WAITED_TOO_LONG in message:
            return Fault(Kind.DEADLINE, "the deadline passed in the engine's queue", param="deadline")
        if FEATURES_ARE_GONE in message:
            return Fault(Kind.UNKNOWN_HANDLE, "the image's Features are gone: send the image again", param="image_id")
        if "DEADLINE_EXCEEDED" in status:
            if deadline.remaining_s() <= 0.001:
                return Fault(Kind.DEADLINE, "the deadline passed inside the engine", param="deadline")
            return _unavailable()
        if _is_away(exc):
            return _unavailable()
        log.error("engine %s failed: %s", self._name, message)
        return Fault(Kind.ENGINE_FAILED, "the engine failed on this request; the server's log has the details")


def _noted(region: str, note: str) -> str:
    """The region's second name; it begins like the first, so that it goes when its owner is gone."""
    return f"{region}.{note}"


def _places(tensors: tuple[TensorSpec, ...], slot: shm.Slot) -> list[Place]:
    """Where one image's Features lie in the slot's region."""
    sizes = [triton_message.nbytes(spec) for spec in tensors]
    starts = slots.offsets(sizes)
    return [
        Place(spec, slot.region, slot.offset + start, size) for spec, start, size in zip(tensors, starts, sizes, strict=False)
    ]


def _fits(spec: TensorSpec, value: npt.NDArray[Any]) -> bool:
    """The shape behind the batch axis is the spec's."""
    same_rank = value.ndim == len(spec.shape) + 1
    return (
        same_rank and value.dtype == spec.dtype and all(s in (-1, n) for s, n in zip(spec.shape, value.shape[1:], strict=True))
    )


def _asked_to_stop() -> bool:
    """Whether the task at work is being cancelled.

    A frame of its own: one that an error keeps, and that knows the task, would keep the error, and the slot with it.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _came_to_nothing(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _is_away(exc: Any) -> bool:
    status = exc.status() or ""
    return "UNAVAILABLE" in status or "CANCELLED" in status


def _unavailable() -> Fault:
    return Fault(
        Kind.ENGINE_UNAVAILABLE, "the engine's server is away and will be back: try again", retry_after_s=RETRY_AFTER_S
    )
