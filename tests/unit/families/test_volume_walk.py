"""The walk alone: which slices in which order, what is encoded ahead, what is kept, what a failure or a cancellation leaves."""

import asyncio

import numpy as np
import pytest

from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import Deadline
from serving.domain.volume import VolumeObject
from serving.errors import Fault, Kind
from serving.families.volume_walk import AHEAD, Walk, plan

SHOWN = ObjectPrompt(box=Box(0, 0, 1, 1))


def item(first, last, key=None):
    return VolumeObject(SHOWN, key, first, last)


class Model:
    """Slices as numbers; a prompt is the list of slices that its chain has seen."""

    def __init__(self, trouble_at=None, hang_at=None, no_mask_at=None, nothing_at=()):
        self.no_mask_at, self.nothing_at = no_mask_at, nothing_at
        self.encoded, self.alive, self.decoded, self.kept = [], set(), [], []
        self.trouble_at, self.hang_at = trouble_at, hang_at

    async def encode(self, index):
        self.encoded.append(index)
        if index == self.hang_at:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        if index == self.trouble_at:
            raise Fault(Kind.ENGINE_FAILED, "the engine failed")
        self.alive.add(index)
        return index

    def done(self, index, features, again):
        assert features == index
        self.alive.remove(index)
        if again:
            self.kept.append(index)

    async def decode(self, index, features, prompts):
        assert features == index
        assert len(self.alive) <= AHEAD
        self.decoded.append((index, [list(each) for each in prompts]))
        return [(index, each) for each in prompts]

    def mask(self, said):
        if said[0] == self.no_mask_at:
            raise Fault(Kind.INTERNAL, "no mask")
        return np.full((1, 1), said[0])

    def first_prompt(self, number):
        return [number]

    def next_prompt(self, number, mask):
        return None if mask[0, 0] in self.nothing_at else [number, int(mask[0, 0])]

    def prompt_behind_nothing(self, number, prompt):
        return [*prompt, "again"]


async def run(work):
    return work()


def walked(objects, slices, model):
    collected, told = [], []

    async def report(progress):
        told.append(progress)

    walk = Walk(objects, slices, model, run, Deadline.after(60))
    return walk, collected, told, walk.go(lambda *said: collected.append(said[:2]), report)


def test_the_plan_has_every_slice_of_every_object_once():
    up, down = plan([item(0, 4), item(3, 6), item(2, 2)], 8)
    assert up.slices == ((2, (0, 2)), (3, (0,)), (4, (0, 1)), (5, (1,)), (6, (1,)))
    assert down.slices == ((3, (1,)), (1, (0,)), (0, (0,)))


@pytest.mark.parametrize(("first", "last", "key"), [(0, 4, 2), (0, 5, 2), (3, 6, 4), (7, 7, 7)])
def test_the_key_slice_is_the_middle_rounded_down(first, last, key):
    assert item(first, last).key_slice() == key


async def test_chains_hand_their_prompts_on_in_both_directions():
    model = Model()
    _, collected, told, go = walked([item(0, 4), item(3, 6)], 8, model)
    await go
    assert model.decoded == [
        (2, [[0]]),
        (3, [[0, 2]]),
        (4, [[0, 3], [1]]),
        (5, [[1, 4]]),
        (6, [[1, 5]]),
        (3, [[1, 4]]),
        (1, [[0, 2]]),
        (0, [[0, 1]]),
    ]
    assert sorted(collected) == [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (5, 1), (6, 1)]
    assert [each.done for each in told] == list(range(1, 9))
    assert model.kept == [3]
    assert model.alive == set()


async def test_what_follows_an_empty_mask_is_the_model_s_to_say_from_what_it_asked():
    model = Model(nothing_at=(2, 4))
    *_, go = walked([item(0, 5)], 8, model)
    await go
    assert model.decoded == [
        (2, [[0]]),
        (3, [[0, "again"]]),
        (4, [[0, 3]]),
        (5, [[0, 3, "again"]]),
        (1, [[0, "again"]]),
        (0, [[0, 1]]),
    ]


async def test_an_object_that_is_not_followed_is_asked_for_alike_on_every_slice():
    model = Model(nothing_at=(3,))
    *_, go = walked([VolumeObject(SHOWN, 2, 2, 5, follow=False)], 8, model)
    await go
    assert model.decoded == [(index, [[0]]) for index in (2, 3, 4, 5)]


@pytest.mark.parametrize("model", [Model(trouble_at=5), Model(no_mask_at=5)], ids=["encoding", "decoding"])
async def test_a_failure_ends_the_walk_and_gives_every_slot_back(model):
    *_, go = walked([item(0, 7)], 8, model)
    with pytest.raises(Fault):
        await go
    assert model.alive == set()


async def test_a_cancellation_ends_the_walk_and_gives_every_slot_back():
    model = Model(hang_at=5)
    *_, told, go = walked([item(0, 7)], 8, model)
    work = asyncio.create_task(go)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(told) == 2
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert model.alive == set()


async def test_a_deadline_that_has_passed_ends_it():
    walk = Walk([item(0, 3)], 4, Model(), run, Deadline.after(-1))

    async def report(progress):
        return None

    with pytest.raises(Fault) as caught:
        await walk.go(lambda *_: None, report)
    assert caught.value.kind is Kind.DEADLINE
