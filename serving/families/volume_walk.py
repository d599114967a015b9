"""Objects followed slice by slice from their key slices: the walk that all SAM-like families share.

Each object is its own chain: on the key slice its prompt, then outwards in both directions, on each slice the prompt that its
mask on the slice before gives; what follows an empty mask is the model's to say (after bowang-lab/MedSAM, branch LiteMedSAM,
`CVPR24_LiteMedSAM_infer.py`). The chains do not touch each other, so the walk is two sweeps over the volume, up and down,
with all objects of a slice in one decoder call and each slice encoded once for all of them; the masks are those of the loop
object by object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from serving.domain.request import Deadline
from serving.domain.volume import VolumeObject, VolumeProgress

AHEAD = 4
"""Slices that are encoded ahead of the one that is decoded: the encoder's batch, and the slots that a job takes."""

Bools = npt.NDArray[np.bool_]
F = TypeVar("F")
P = TypeVar("P")
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
Collect = Callable[[int, int, Bools], None]
"""Slice, object and its mask there (rows, columns)."""
Report = Callable[[VolumeProgress], Awaitable[None]]


class SliceModel(Protocol[F, P]):
    """How one model sees one volume. `F`: a slice's Features; `P`: a prompt in the model's own frame."""

    async def encode(self, index: int) -> F:
        """The Features of a slice. Called ahead, several at a time."""
        ...

    def done(self, index: int, features: F, again: bool) -> None:
        """The slice's Features are not needed now; `again`: they will be, in the other sweep."""
        ...

    async def decode(self, index: int, features: F, prompts: Sequence[P]) -> Sequence[Any]:
        """What the decoder says, one entry a prompt."""
        ...

    def mask(self, said: Any) -> Bools:
        """One entry -> mask (rows, columns) of the slice. Blocking."""
        ...

    def first_prompt(self, number: int) -> P:
        """An object's prompt on its key slice."""
        ...

    def next_prompt(self, number: int, mask: Bools) -> P | None:
        """The prompt that an object's mask gives for the next slice, or None where it shows nothing. Blocking."""
        ...

    def prompt_behind_nothing(self, number: int, prompt: P) -> P:
        """The next slice's prompt where an object's mask shows nothing; `prompt`: what it was asked with."""
        ...


@dataclass(frozen=True)
class Sweep:
    """Slices in their order, each with the objects that are on it."""

    slices: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def indices(self) -> frozenset[int]:
        """The slices alone."""
        return frozenset(index for index, _ in self.slices)


def plan(objects: Sequence[VolumeObject], slices: int) -> tuple[Sweep, Sweep]:
    """The sweep upwards, key slices included, and the one downwards."""
    up: dict[int, list[int]] = {}
    down: dict[int, list[int]] = {}
    for number, item in enumerate(objects):
        key = item.key_slice()
        first, last = item.extent(slices)
        for index in range(key, last + 1):
            up.setdefault(index, []).append(number)
        for index in range(first, key):
            down.setdefault(index, []).append(number)
    return (
        Sweep(tuple((index, tuple(up[index])) for index in sorted(up))),
        Sweep(tuple((index, tuple(down[index])) for index in sorted(down, reverse=True))),
    )


class Walk(Generic[F, P]):
    """One volume's walk with one model. `run`: runs blocking work in the pool's threads."""

    def __init__(
        self, objects: Sequence[VolumeObject], slices: int, model: SliceModel[F, P], run: Run, deadline: Deadline
    ) -> None:
        self._objects = objects
        self._model = model
        self._run = run
        self._deadline = deadline
        self._up, self._down = plan(objects, slices)
        self._ended: set[int] = set()
        self._next: dict[int, P] = {}
        self._below: dict[int, P] = {}
        self._keys = [item.key_slice() for item in objects]

    @property
    def visits(self) -> int:
        """Slices of both sweeps: so many steps at most."""
        return len(self._up.slices) + len(self._down.slices)

    async def go(self, collect: Collect, report: Report) -> None:
        """Visit every slice. `collect` is called in a thread. Raises Fault; a cancellation takes the work along."""
        twice = self._up.indices & self._down.indices
        done = 0
        for sweep in (self._up, self._down):
            upwards = sweep is self._up
            async with _Ahead(self._model, sweep, self._wanted) as ahead:
                for place, (index, members) in enumerate(sweep.slices):
                    done += 1
                    active = tuple(number for number in members if number not in self._ended)
                    if active:
                        self._deadline.check("the next slice")
                        features = await ahead.take(place)
                        try:
                            await self._visit(index, features, active, collect)
                        finally:
                            self._model.done(index, features, again=upwards and index in twice)
                            del features
                    await report(VolumeProgress(done, self.visits, index, active))
            self._next = self._below
            self._ended = {n for n in self._ended if n not in self._below}

    def _wanted(self, members: Sequence[int]) -> bool:
        return any(number not in self._ended for number in members)

    async def _visit(self, index: int, features: F, active: Sequence[int], collect: Collect) -> None:
        prompts = [self._prompt(number, index) for number in active]
        said = await self._model.decode(index, features, prompts)
        found = await self._run(partial(self._settle, index, active, said, collect))
        for number, asked, prompt in zip(active, prompts, found, strict=True):
            if prompt is None and self._objects[number].open_ended:
                self._ended.add(number)
                continue
            if not self._objects[number].follow:
                following = self._model.first_prompt(number)
            else:
                following = self._model.prompt_behind_nothing(number, asked) if prompt is None else prompt
            self._next[number] = following
            if index == self._keys[number]:
                self._below[number] = following

    def _prompt(self, number: int, index: int) -> P:
        return self._model.first_prompt(number) if index == self._keys[number] else self._next[number]

    def _settle(self, index: int, active: Sequence[int], said: Sequence[Any], collect: Collect) -> list[P | None]:
        """Masks of a slice, one at a time: collected, and turned into the next slice's prompts."""
        found: list[P | None] = []
        for number, one in zip(active, said, strict=True):
            mask = self._model.mask(one)
            collect(index, number, mask)
            found.append(self._model.next_prompt(number, mask))
        return found


class _Ahead(Generic[F]):
    """The Features of a sweep's slices, encoded `AHEAD` of the walk. A context: what is under way at its end is cancelled."""

    def __init__(self, model: SliceModel[F, Any], sweep: Sweep, wanted: Callable[[Sequence[int]], bool]) -> None:
        self._model, self._sweep, self._wanted = model, sweep, wanted
        self._tasks: dict[int, asyncio.Task[F]] = {}

    async def take(self, place: int) -> F:
        """The Features of the slice at a place of the sweep; those behind it are begun."""
        for each in range(place, min(place + AHEAD, len(self._sweep.slices))):
            index, members = self._sweep.slices[each]
            if each not in self._tasks and self._wanted(members):
                self._tasks[each] = asyncio.create_task(self._model.encode(index))
        task = self._tasks.pop(place)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def __aenter__(self) -> _Ahead[F]:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        found = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for place, features in zip(self._tasks, found, strict=True):
            if not isinstance(features, BaseException):
                self._model.done(self._sweep.slices[place][0], features, again=False)
        self._tasks.clear()
