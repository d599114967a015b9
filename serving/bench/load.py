"""The load: closed loops (each worker asks again when it has its answer) and open ones (arrivals do not wait for answers).

It runs in the bench's process, which is not the server's, and shares the machine's cores with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from serving.bench.asking import Ask
from serving.bench.wire import Line, Reply

T = TypeVar("T")
Dial = Callable[[], Line]
MOST_LINES = 512
RETRY_AFTER_S = 1.0
"""Where a refusal does not say when to come back, as gRPC's status does not."""


@dataclass(frozen=True)
class Sample:
    """One call. `status` 0: no answer came. `sent_s`: when, on the run's clock; `right`: its mask is the golden one."""

    kind: str
    sent_s: float
    seconds: float
    status: int
    stages_ms: dict[str, float]
    features: str = ""
    right: bool = True
    code: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return 200 <= self.status < 300


@dataclass
class Run:
    """The calls of one measured stretch."""

    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, *kinds: str) -> list[Sample]:
        """Those that went well, of some kinds (all where none is named)."""
        return [s for s in self.samples if s.ok and (not kinds or s.kind in kinds)]

    def latencies(self, *kinds: str) -> list[float]:
        """Seconds of those that went well."""
        return [s.seconds for s in self.of(*kinds)]

    @property
    def failed(self) -> list[Sample]:
        """Those that were refused, failed or not answered."""
        return [s for s in self.samples if not s.ok]

    @property
    def wrong(self) -> int:
        """Masks that are not the golden ones."""
        return sum(not s.right for s in self.samples)

    def rate(self, *kinds: str) -> float:
        """Calls a second that went well."""
        return len(self.of(*kinds)) / self.seconds if self.seconds else 0.0


def run(work: Awaitable[T]) -> T:
    """Run to the end on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_await(work))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_await(work))


async def _await(work: Awaitable[T]) -> T:
    return await work


async def ask_once(line: Line, ask: Ask, began: float) -> tuple[Sample, Reply | None]:
    """One call, timed and checked."""
    start = time.perf_counter()
    try:
        reply = await line.call(ask)
    except OSError as exc:
        return Sample(ask.kind, start - began, time.perf_counter() - start, 0, {}, code=type(exc).__name__), None
    spent = time.perf_counter() - start
    right = not ask.golden or not reply.ok or reply.counts() == ask.golden
    code = "" if reply.ok else _code(reply)
    return Sample(ask.kind, start - began, spent, reply.status, reply.stages_ms, reply.features, right, code), reply


def _code(reply: Reply) -> str:
    found = reply.header(b"x-error-code")
    if found or not reply.body.startswith(b"{"):
        return found or "?"
    try:
        return str(reply.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "?"


async def closed(
    dial: Dial, asks: Sequence[Iterator[Ask]], seconds: float, think_s: float = 0.0, *, patient: bool = False
) -> Run:
    """One worker an iterator, each with a line of its own, for a while.

    `patient`: who is sent away comes back with the same call when the server said, until it is answered or the while is over.
    """
    found = Run()
    began = time.perf_counter()

    async def work(mine: Iterator[Ask]) -> None:
        line = dial()
        try:
            for ask in mine:
                if time.perf_counter() - began >= seconds:
                    return
                sample, reply = await ask_once(line, ask, began)
                while patient and await sent_away(sample, reply):
                    if time.perf_counter() - began >= seconds:
                        return
                    sample, reply = await ask_once(line, ask, began)
                found.samples.append(sample)
                if think_s or not sample.ok:
                    await asyncio.sleep(max(think_s, 0.0 if sample.ok else 0.02))
        finally:
            await line.close()

    await asyncio.gather(*(work(mine) for mine in asks))
    found.seconds = time.perf_counter() - began
    return found


async def sent_away(sample: Sample, reply: Reply | None) -> bool:
    """Whether a pool was full; if so, once the time has passed after which the server said to come back."""
    if sample.status != 503 or reply is None:
        return False
    await asyncio.sleep(float(reply.header(b"retry-after") or RETRY_AFTER_S))
    return True


async def together(dial: Dial, asks: Sequence[Ask]) -> Run:
    """All at once, each on a line that is open already."""
    lines = [dial() for _ in asks]
    found = Run()
    try:
        await asyncio.gather(*(open_line(line) for line in lines))
        began = time.perf_counter()
        answers = await asyncio.gather(*(ask_once(line, ask, began) for line, ask in zip(lines, asks, strict=True)))
        found.seconds = time.perf_counter() - began
        found.samples = [sample for sample, _ in answers]
    finally:
        for line in lines:
            await line.close()
    return found


async def open_line(line: Line) -> None:
    """Connect by asking whether the server lives (HTTP); a gRPC channel connects by itself."""
    from serving.bench.asking import head
    from serving.bench.wire import HttpLine

    if isinstance(line, HttpLine):
        await line.call(Ask("live", head("/livez", b"text/plain", 0, method="GET"), b""))
    else:
        channel: Any = line.__dict__["_channel"]
        await channel.channel_ready()


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals: seconds from the start."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, int(rate * seconds * 1.5) + 20)
    return [float(t) for t in np.cumsum(gaps) if t < seconds]


async def opened(
    dial: Dial, asks: Iterator[Ask], times_s: Sequence[float], watch: Callable[[Sample], None] | None = None
) -> Run:
    """Each ask is sent at its time, whatever has come back by then. A new line is opened where all are busy."""
    found, idle = Run(), list[Line]()
    began = time.perf_counter()
    pending: set[asyncio.Task[None]] = set()

    async def one(ask: Ask, due_s: float) -> None:
        line = idle.pop() if idle else dial()
        sample, _ = await ask_once(line, ask, began)
        # From when it was due: a client that is late must not hide what its user waits.
        sample = replace(sample, seconds=sample.seconds + max(sample.sent_s - due_s, 0.0))
        if len(idle) < MOST_LINES:
            idle.append(line)
        else:
            await line.close()
        found.samples.append(sample)
        if watch is not None:
            watch(sample)

    for at in times_s:
        wait = at - (time.perf_counter() - began)
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(next(asks), at))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    found.seconds = time.perf_counter() - began
    for line in idle:
        await line.close()
    return found
