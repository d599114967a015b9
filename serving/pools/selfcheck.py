"""Each engine of a replica answers, through Triton, what it answered when it was built."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serving import shm, slots
from serving.domain.request import Deadline
from serving.embeddings.arena import Arena
from serving.engines import selfcheck
from serving.engines.engine import Engine
from serving.errors import Fault, Kind, SetupError
from serving.pools.warmup import slow
from serving.shm import Slot

log = logging.getLogger(__name__)

RETRY_S = 0.1
TRANSIENT = (Kind.ENGINE_UNAVAILABLE, Kind.POOL_FULL)


class Memo(Protocol):
    """What a server remembers for as long as it lives: `TritonServer`, about the arena's region."""

    async def remembers(self, region: str, note: str) -> bool:
        """Whether it was given this note."""
        ...

    async def note(self, region: str, note: str) -> None:
        """Give it one."""
        ...


@dataclass(frozen=True)
class Check:
    """One engine of one model, and the file that its build left beside it. `engine_name`: as in the repository."""

    model: str
    engine_name: str
    engine: Engine
    file: Path


async def once(
    checks: Sequence[Check], arena: Arena | None, memo: Memo, region: str, timeout_s: float
) -> dict[tuple[str, str], bool]:
    """`run`, unless these engines of this server have passed for another replica: an upgrade need not encode to know that.

    The replicas of a node take turns: who starts beside another waits for its result, where an encode may take a minute.
    """
    if arena is None:
        return await run(checks, arena, timeout_s)
    note = f"passed.{_digest(checks)}"
    async with _turn(arena.region):
        if await memo.remembers(region, note):
            return {(check.model, check.engine_name): True for check in checks if check.file.exists()}
        found = await run(checks, arena, timeout_s)
        if found and all(found.values()):
            await memo.note(region, note)
        return found


@asynccontextmanager
async def _turn(region: str) -> AsyncIterator[None]:
    """Alone among the processes that have the arena, by flock(2) on its file: the kernel ends the turn of one that dies."""
    with (shm.ROOT / region).open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(RETRY_S)
        yield


def _digest(checks: Sequence[Check]) -> str:
    """Of which engines are checked, and against what."""
    found = hashlib.sha256()
    for check in checks:
        found.update(f"{check.model} {check.file} ".encode())
        found.update(check.file.read_bytes() if check.file.exists() else b"none")
    return found.hexdigest()[:16]


async def run(checks: Sequence[Check], arena: Arena | None, timeout_s: float) -> dict[tuple[str, str], bool]:
    """(model, engine) -> whether it answers as it was built. Engines without a file are left out, and say so in the log.

    `timeout_s`: of one engine. Raises SetupError where one does not answer in time at all, Fault where Triton is gone so long.
    """
    found: dict[tuple[str, str], bool] = {}
    for model in dict.fromkeys(check.model for check in checks):
        mine = [check for check in checks if check.model == model]
        found |= await _of_one_model(sorted(mine, key=lambda check: not check.engine.spec.writes), arena, timeout_s)
    return found


async def _of_one_model(checks: Sequence[Check], arena: Arena | None, timeout_s: float) -> dict[tuple[str, str], bool]:
    """Those that write Features first: the others read what they wrote."""
    slot = await _slot(arena, timeout_s) if arena is not None and any(check.engine.spec.writes for check in checks) else None
    found: dict[tuple[str, str], bool] = {}
    try:
        for check in checks:
            if not check.file.exists():
                log.info("engine %s has no self-check: it was built elsewhere", check.engine_name)
                continue
            passed = await _passes(check, arena, slot, timeout_s)
            key = (check.model, check.engine_name)
            found[key] = found.get(key, True) and passed
            if not passed:
                log.error("engine %s does not answer as it did when it was built", check.engine_name)
    finally:
        if arena is not None and slot is not None:
            arena.drop(slot)
    return found


async def _passes(check: Check, arena: Arena | None, slot: Slot | None, timeout_s: float) -> bool:
    inputs, stored = selfcheck.load(check.file)
    deadline = Deadline.after(timeout_s)
    spec = check.engine.spec
    theirs = slot if spec.reads or spec.writes else None
    outputs = tuple(tensor.name for tensor in spec.outputs if tensor.name in stored)
    while True:
        try:
            got = dict(await check.engine.infer(inputs, deadline, outputs=outputs, slot=theirs))
            break
        except Fault as fault:
            if fault.kind in TRANSIENT and deadline.remaining_s() > 0:
                await asyncio.sleep(RETRY_S)
                continue
            if fault.kind in (Kind.ENGINE_FAILED, Kind.UNKNOWN_HANDLE):
                return False
            if fault.kind is Kind.DEADLINE:
                raise SetupError(slow(f"engine {check.engine_name}", "self-check", timeout_s)) from fault
            raise
    if spec.writes and arena is not None and slot is not None:
        got |= _written(spec.writes, arena.read(slot))
        arena.commit(slot, f"selfcheck.{secrets.token_hex(8)}", b"")
    return selfcheck.matches(stored, got)


def _written(tensors: Sequence[Any], place: npt.NDArray[np.uint8]) -> Mapping[str, npt.NDArray[Any]]:
    """Features as they lie in a slot's bytes."""
    sizes = [int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize for tensor in tensors]
    starts = slots.offsets(sizes)
    return {
        tensor.name: place[start : start + size].view(tensor.dtype)
        for tensor, start, size in zip(tensors, starts, sizes, strict=False)
    }


async def _slot(arena: Arena, timeout_s: float) -> Slot:
    """A slot of one's own, when one is free."""
    deadline = Deadline.after(timeout_s)
    while isinstance(slot := arena.claim(f"selfcheck {secrets.token_hex(8)}"), str):
        deadline.check("the self-check")
        await asyncio.sleep(RETRY_S)
    return slot
