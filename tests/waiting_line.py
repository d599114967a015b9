"""A waiting line before an engine whose calls wait until a test lets them go, and objects that are told apart."""

import asyncio
from dataclasses import dataclass, field

import numpy as np

from serving.domain.request import Deadline
from serving.engines.engine import EngineSpec, TensorSpec
from serving.engines.fake import FakeEngine
from serving.engines.line import Line
from serving.errors import Fault
from serving.shm import Slot

SPEC = EngineSpec(
    "decoder",
    (TensorSpec("points", "float32", (-1, -1, 2)), TensorSpec("labels", "int64", (-1, -1))),
    (TensorSpec("mask", "float32", (-1,)), TensorSpec("count", "int64", (-1,))),
    join=1,
)
SLOTS = tuple(Slot("r", index, 1, 0) for index in range(3))


def objects(*values, points=2):
    """Objects (1, P, N, 2) that are told apart by a value each."""
    filled = np.zeros((1, len(values), points, 2), np.float32)
    filled[..., 0] = np.array(values)[None, :, None]
    return {"points": filled, "labels": np.ones((1, len(values), points), np.int64)}


def values(inputs):
    return tuple(inputs["points"][0, :, 0, 0].astype(int))


def answer(inputs):
    return {"mask": 2 * inputs["points"][:, :, 0, 0], "count": inputs["labels"].sum(axis=2)}


@dataclass
class Held(FakeEngine):
    """A fake whose calls wait until they are let go. `sent`: what each call brought; `most`: calls at a time."""

    sent: list = field(default_factory=list)
    told: list = field(default_factory=list)
    inside: int = 0
    most: int = 0
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def let(self, calls=1):
        """Let the next calls go through."""
        for _ in range(calls):
            self.gate.release()

    async def infer(self, inputs, deadline, **more):
        self.sent.append(values(inputs))
        self.told.append((deadline, more))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate.acquire()
            return await super().infer(inputs, deadline, **more)
        finally:
            self.inside -= 1


def made(function=answer, spec=SPEC, in_flight=1, **given):
    engine = Held(spec, function)
    return engine, Line(engine, in_flight, **given)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def ask(waiting, inputs, *, seconds=60.0, **given):
    """A call as a task of its own, begun in the order of asking."""
    return asyncio.create_task(waiting.infer(inputs, Deadline.after(seconds), **given))


async def busy(engine, waiting, calls=1):
    """The line with that many calls under way, so that what comes next has to wait."""
    tasks = [ask(waiting, objects(-1 - n), slot=None) for n in range(calls)]
    await turns()
    assert engine.sent == [(-1 - n,) for n in range(calls)]
    return tasks


async def let_go(engine, *tasks):
    engine.let(1000)
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)


def failing(kind, *bad):
    """An engine that fails on each call that brings one of these values."""

    def function(inputs):
        if set(values(inputs)) & set(bad):
            raise Fault(kind, "no")
        return answer(inputs)

    return function
