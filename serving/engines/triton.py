"""A Triton server, by asynchronous gRPC with a deadline on every call: its channel, and the memory that it shares with us."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import tritonclient.grpc.aio as triton_grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from serving import shm
from serving.engines import triton_faults
from serving.engines.engine import EngineSpec
from serving.engines.memory import Memory, SystemMemory
from serving.engines.outbox import Outbox
from serving.engines.triton_engine import TritonEngine
from serving.errors import Fault, Kind
from serving.manifest import EngineRecord

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 512 * 1024 * 1024
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
            if triton_faults.is_away(exc):
                raise triton_faults.unavailable() from exc
            log.error("Triton cannot map the Features arena: is it on this node? %s", exc.message())
            raise Fault(Kind.ENGINE_FAILED, "the engine's server does not share this node's memory") from exc

    async def _forget_region(self, name: str) -> None:
        """Take a dead owner's region out. One that a call still reads stays until the next replica comes."""
        try:
            await self._memory.unregister(self.client, name, self.call_timeout_s)
        except InferenceServerException as exc:
            if triton_faults.REGION_IS_IN_USE not in exc.message():
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


def _noted(region: str, note: str) -> str:
    """The region's second name; it begins like the first, so that it goes when its owner is gone."""
    return f"{region}.{note}"


def _came_to_nothing(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
