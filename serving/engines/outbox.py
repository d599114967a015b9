"""Where a server lays what engines answer: a small region of /dev/shm of this process, so that logits go in no message.

A mask's logits are 256 KiB. In a message they are copied several times and cut into frames on the way (docs/decisions/0027).
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from serving import shm, slots
from serving.engines.engine import TensorSpec
from serving.engines.memory import Memory, SystemMemory
from serving.engines.triton_message import Place, nbytes

log = logging.getLogger(__name__)

PLACES = 3
PLACE_BYTES = 2 * 1024 * 1024
"""Seven objects' masks; what is larger goes in its message."""
MARK = "outbox_"
AWAY = ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED")


class Outbox:
    """Places of equal size in one region, each for one call at a time. One event loop; nothing here blocks.

    What needs more room, and what finds no place free, goes in the message. `headers`: the server's key, where it asks for one.
    """

    def __init__(self, headers: dict[str, str] | None = None, places: int = PLACES, place_bytes: int = PLACE_BYTES) -> None:
        self.region = f"{shm.prefix()}{MARK}{secrets.token_hex(4)}"
        self._place_bytes = place_bytes
        self._nbytes = places * place_bytes
        self._memory: Memory = SystemMemory(self._nbytes, headers)
        self._free = [n * place_bytes for n in range(places)]
        self._bytes: npt.NDArray[np.uint8] | None = None
        self._registration: asyncio.Task[bool] | None = None
        self._shut = False

    async def lay(self, tensors: Sequence[TensorSpec], client: Any, timeout_s: float) -> list[Place]:
        """Room for these tensors, of known shape, to be given back with `give_back`; empty where they go in the message.

        `client`: tritonclient's asynchronous one. The first call makes the region and has the server map it.
        """
        sizes = [nbytes(tensor) for tensor in tensors]
        starts = slots.offsets(sizes)
        if self._shut or not sizes or starts[-1] > self._place_bytes or not self._free:
            return []
        if not await self._mapped(client, timeout_s) or not self._free:
            return []
        at = self._free.pop()
        return [Place(spec, self.region, at + start, size) for spec, start, size in zip(tensors, starts, sizes, strict=False)]

    def read(self, response: Any, laid: Sequence[Place]) -> dict[str, npt.NDArray[Any]]:
        """name -> array, a copy of what the server says that it has laid; one whose shape is another is left out."""
        shapes = {tensor.name: tuple(tensor.shape) for tensor in response.outputs}
        return {each.spec.name: self._copy(each) for each in laid if shapes.get(each.spec.name) == (1, *each.spec.shape)}

    def give_back(self, laid: Sequence[Place], after_s: float = 0.0) -> None:
        """The room is free again, now or when a call that was given up can be at work no more."""
        if not laid:
            return
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._free.append, laid[0].offset)
        else:
            self._free.append(laid[0].offset)

    def forgotten(self) -> None:
        """The server does not know the region any more (it was restarted): tell it again before the next use."""
        self._registration = None

    def close(self) -> None:
        """Give the memory back. The server keeps its own mapping until it is told or restarted."""
        self._shut = True
        (shm.ROOT / self.region).unlink(missing_ok=True)

    def _copy(self, place: Place) -> npt.NDArray[Any]:
        assert self._bytes is not None
        found = self._bytes[place.offset : place.offset + place.nbytes].copy()
        return found.view(place.spec.dtype).reshape(1, *place.spec.shape)

    async def _mapped(self, client: Any, timeout_s: float) -> bool:
        if self._registration is None or (self._registration.done() and not _told(self._registration)):
            self._registration = asyncio.create_task(self._register(client, timeout_s))
        registration = self._registration
        if not registration.done():
            await asyncio.wait({registration})  # a caller that leaves does not take it along
        return _told(registration)

    async def _register(self, client: Any, timeout_s: float) -> bool:
        """Whether the server has mapped the region. Takes those of processes that are gone out on the way."""
        try:
            self._make()
            known = await self._memory.known(client, timeout_s)
            for name in filter(_left_behind, known):
                await self._forget(client, name, timeout_s)
            if self.region not in known:
                await self._memory.register(client, self.region, timeout_s)
        except InferenceServerException as exc:
            if not any(word in (exc.status() or "") for word in AWAY):
                self._shut_for(exc.message())
            return False
        except OSError as exc:
            self._shut_for(exc.strerror or type(exc).__name__)
            return False
        return True

    def _make(self) -> None:
        """The region, its memory taken at once: a server that writes where there is none would be killed."""
        if self._bytes is not None:
            return
        for path in shm.ROOT.glob(f"*{MARK}*"):
            if _left_behind(path.name):
                path.unlink(missing_ok=True)
        descriptor = os.open(shm.ROOT / self.region, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._nbytes)
            self._bytes = np.frombuffer(mmap.mmap(descriptor, self._nbytes), np.uint8)
        finally:
            os.close(descriptor)

    async def _forget(self, client: Any, name: str, timeout_s: float) -> None:
        try:
            await self._memory.unregister(client, name, timeout_s)
        except InferenceServerException as exc:
            log.info("Triton keeps a dead process's memory for now: %s", exc.message())

    def _shut_for(self, reason: str) -> None:
        self.close()
        log.warning("engines answer in messages, which is slower: Triton does not map this process's memory (%s)", reason)


def _left_behind(name: str) -> bool:
    """Of a replica that is gone. What others leave is theirs to find: in a pod they count their processes apart."""
    return MARK in name and shm.owner_is_gone(name)


def _told(registration: asyncio.Task[bool]) -> bool:
    return registration.done() and not registration.cancelled() and registration.exception() is None and registration.result()
