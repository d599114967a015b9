"""The waiting line in front of one engine: the server works on one thing and has the next at hand; the rest wait here.

What waits here can still be dropped when its deadline passes or its client leaves, be overtaken by more urgent work, and go
together with a call on the same image: an engine call, once sent, can do none of that. Triton's own queue has no policy
(docs/decisions/0011), so order, bound and deadlines are kept here alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.board import Clock
from serving.domain.request import Deadline, Priority
from serving.engines.engine import Engine, EngineSpec, Tensors, Timing, ignore
from serving.errors import Fault, Kind
from serving.shm import Slot
from serving.telemetry import tracing

Outputs = dict[str, npt.NDArray[Any]]

IN_FLIGHT = 2
"""Calls that are sent at a time: one is worked on, the next is already there when it is done."""
LONGEST = 256
"""Calls of one priority that wait; one more is refused at once. The door refuses long before: this is for when it is wrong."""
BULK_SHARE = 4
"""Bulk gets one place of so many, and at least one, while interactive calls are inside."""
BULK_TURN = 8
"""Where both wait, every so-manieth call is bulk: bulk gets on, slowly, however much interactive work there is."""
RETRY_AFTER_S = 1.0
MOST_ROWS = 16
"""Rows along the join axis in one call: a mask decoder's activations take some 30 MB an object."""


@dataclass(eq=False)
class _Call:
    inputs: Tensors
    deadline: Deadline
    outputs: tuple[str, ...]
    priority: Priority
    slot: Slot | None
    answer: asyncio.Future[Outputs] | None
    since: float = field(default_factory=time.monotonic)
    context: Context | None = field(default_factory=tracing.context)
    waited_s: float = 0.0
    worked_s: float = 0.0

    @property
    def awaited(self) -> bool:
        """Whether somebody still waits for it."""
        return self.answer is not None and not self.answer.done()

    def give(self, made: Outputs) -> None:
        """The answer, to whoever still waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(made)

    def fail(self, exc: Exception) -> None:
        """No answer, to whoever still waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc)

    def alike(self, other: _Call) -> bool:
        """Whether both may go in one call: the same slot, the same outputs, the same shapes but for the number of rows."""
        mine, its = self.slot, other.slot
        same_slot = mine is not None and its is not None and (mine.index, mine.generation) == (its.index, its.generation)
        return same_slot and self.outputs == other.outputs and _row_shapes(self.inputs) == _row_shapes(other.inputs)


class Line:
    """Implements `Engine` in front of another; one event loop. `in_flight`: calls sent at a time; `longest`: that wait.

    `clock`: when the engine was last done with a call, of whichever replica: a call is not worked on before.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: int = IN_FLIGHT,
        most_rows: int = MOST_ROWS,
        longest: int = LONGEST,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._most_rows = most_rows
        self._longest = longest
        self._inside: dict[Priority, int] = dict.fromkeys(Priority, 0)
        self._passed = 0
        """Interactive calls sent in a row while bulk waited."""
        self._waiting: dict[Priority, deque[_Call]] = {priority: deque() for priority in Priority}
        self._clock = clock or Clock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def spec(self) -> EngineSpec:
        """The engine's."""
        return self._engine.spec

    async def infer(
        self,
        inputs: Tensors,
        deadline: Deadline,
        *,
        outputs: tuple[str, ...] = (),
        priority: Priority = Priority.INTERACTIVE,
        slot: Slot | None = None,
        timing: Timing = ignore,
    ) -> Outputs:
        """Wait, run, give the named outputs. Raises Fault as `Engine.infer` says."""
        left_s = deadline.check(f"engine {self.spec.name}")
        self._check_room(priority)
        answer: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        call = _Call(inputs, deadline, outputs, priority, slot, answer)
        self._waiting[priority].append(call)
        self._pump()
        try:
            async with asyncio.timeout(left_s):
                made = await answer
        except TimeoutError as exc:
            raise Fault(Kind.DEADLINE, f"the deadline passed at engine {self.spec.name}", param="deadline") from exc
        finally:
            call.answer = None
            del answer  # an error keeps this frame: a way back from it to the error would keep the slot with them
        timing(call.waited_s, call.worked_s)
        return made

    def _check_room(self, priority: Priority) -> None:
        if len(self._waiting[priority]) >= self._longest:
            self._waiting[priority] = deque(call for call in self._waiting[priority] if call.awaited)
        if len(self._waiting[priority]) >= self._longest:
            raise Fault(Kind.POOL_FULL, "the engine's line is full: try again later", retry_after_s=RETRY_AFTER_S)

    def _pump(self) -> None:
        while sum(self._inside.values()) < self._in_flight and (calls := self._next()):
            priority = _most_urgent(calls)
            self._inside[priority] += 1
            task = asyncio.create_task(self._send(calls, priority), context=calls[0].context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[_Call]:
        """The call whose turn it is, and those that can go with it; empty where nobody waits who may be sent."""
        urgent, bulk = self._first(Priority.INTERACTIVE), self._first(Priority.BULK)
        if bulk is not None and not self._room_for_bulk(urgent is not None):
            bulk = None
        if urgent is None or (bulk is not None and self._passed >= BULK_TURN - 1):
            self._passed = 0
            return self._taken(bulk)
        self._passed += bulk is not None
        return self._taken(urgent)

    def _first(self, priority: Priority) -> _Call | None:
        """Who waits first of a priority; those that nobody waits for are let go."""
        waiting = self._waiting[priority]
        while waiting and not waiting[0].awaited:
            waiting.popleft()
        return waiting[0] if waiting else None

    def _taken(self, call: _Call | None) -> list[_Call]:
        if call is None:
            return []
        self._waiting[call.priority].popleft()
        return [call, *self._companions(call)]

    def _room_for_bulk(self, urgent: bool) -> bool:
        """Whether one more bulk call may be sent: all places are bulk's only while nothing interactive is about."""
        share = max(1, self._in_flight // BULK_SHARE)
        return self._inside[Priority.BULK] < share or not (urgent or self._inside[Priority.INTERACTIVE])

    def _companions(self, first: _Call) -> list[_Call]:
        axis = self.spec.join
        if axis is None:
            return []
        rows, found = _rows(first, axis), []
        for waiting in self._waiting.values():
            for call in [each for each in waiting if each.awaited and each.alike(first)]:
                if rows + _rows(call, axis) > self._most_rows:
                    break
                rows += _rows(call, axis)
                waiting.remove(call)
                found.append(call)
        return found

    async def _send(self, calls: list[_Call], priority: Priority) -> None:
        try:
            await self._run(calls)
        except Exception as exc:
            if len(calls) > 1 and isinstance(exc, Fault) and exc.kind is Kind.ENGINE_FAILED:
                for call in calls:  # one of them may be at fault, and fails alone
                    await self._send_alone(call)
                return
            for call in calls:
                call.fail(exc)
        finally:
            self._inside[priority] -= 1
            self._pump()

    async def _send_alone(self, call: _Call) -> None:
        if not call.awaited:
            return
        try:
            await self._run([call])
        except Exception as exc:
            call.fail(exc)

    async def _run(self, calls: list[_Call]) -> None:
        first, axis = calls[0], self.spec.join
        sent = time.monotonic()
        together = len(calls) > 1 and axis is not None
        inputs = _joined(calls, axis) if together and axis is not None else first.inputs
        deadline = max((call.deadline for call in calls), key=Deadline.remaining_s)
        priority = _most_urgent(calls)
        made = await self._engine.infer(inputs, deadline, outputs=first.outputs, priority=priority, slot=first.slot)
        done = time.monotonic()
        began, self._clock.done_s = max(sent, min(self._clock.done_s, done)), done
        parts = _parted(made, calls, axis) if together and axis is not None else [made]
        for call, part in zip(calls, parts, strict=True):
            call.waited_s, call.worked_s = began - call.since, (done - began) / len(calls)
            call.give(part)


def _most_urgent(calls: list[_Call]) -> Priority:
    return Priority.INTERACTIVE if any(call.priority is Priority.INTERACTIVE for call in calls) else Priority.BULK


def _row_shapes(inputs: Tensors) -> dict[str, tuple[int, ...]]:
    """name -> shape behind the batch axis and the objects' axis."""
    return {name: value.shape[2:] for name, value in inputs.items()}


def _rows(call: _Call, axis: int) -> int:
    return int(next(iter(call.inputs.values())).shape[axis])


def _joined(calls: list[_Call], axis: int) -> Tensors:
    return {name: np.concatenate([call.inputs[name] for call in calls], axis=axis) for name in calls[0].inputs}


def _parted(made: Outputs, calls: list[_Call], axis: int) -> list[Outputs]:
    cuts = np.cumsum([_rows(call, axis) for call in calls])[:-1]
    split = {name: np.split(value, cuts, axis=axis) for name, value in made.items()}
    return [{name: split[name][index] for name in made} for index in range(len(calls))]
