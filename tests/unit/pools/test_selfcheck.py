"""Engines asked through their own protocol for what they answered when they were built."""

import asyncio

import numpy as np
import pytest
from arenas import small_arena

from serving.engines import selfcheck
from serving.engines.engine import EngineSpec, TensorSpec
from serving.errors import Fault, Kind, SetupError
from serving.pools.selfcheck import Check, once, run
from serving.slots import READY, offsets

IMAGE = TensorSpec("image", "float32", (2, 3))
X0 = TensorSpec("x0", "float32", (6,))
ENCODER = EngineSpec("encoder", (IMAGE,), (), writes=(X0,))
DECODER = EngineSpec("decoder", (TensorSpec("points", "float32", (4,)),), (TensorSpec("mask", "float32", (4,)),), reads=(X0,))
DRAWN = {"encoder": [("image", "float32", (1, 2, 3), 0, 1)], "decoder": [("points", "float32", (1, 4), 0, 9)]}
SLOT_BYTES = offsets([24])[-1]


class Engine:
    """Encodes into and decodes from a real arena. `wrong`: factor on what it gives; `faults`: raised first."""

    def __init__(self, spec, arena, wrong=1.0, faults=()):
        self.spec, self.arena, self.wrong, self.faults = spec, arena, wrong, list(faults)

    async def infer(self, inputs, deadline, *, outputs=(), slot=None, **more):
        if self.faults:
            raise self.faults.pop(0)
        place = self.arena._slots.view(slot.index)[:24].view(np.float32)
        if self.spec.writes:
            place[:] = self.wrong * inputs["image"].ravel()
            return {}
        assert self.arena._slots.table[slot.index]["state"] == READY
        return {"mask": self.wrong * inputs["points"] * place.sum()}


@pytest.fixture
def arena():
    with small_arena(slots=2, slot_bytes=SLOT_BYTES) as made:
        yield made


@pytest.fixture
def files(tmp_path):
    """What a build stores of both engines."""
    image = selfcheck.draw(DRAWN["encoder"])["image"]
    answers = {"encoder": {"x0": image.ravel()}}
    answers["decoder"] = {"mask": selfcheck.draw(DRAWN["decoder"])["points"] * image.sum()}
    for name, outputs in answers.items():
        selfcheck.save(tmp_path / f"{name}.npz", DRAWN[name], outputs)
    return {name: tmp_path / f"{name}.npz" for name in answers}


def checks(arena, files, **special):
    engines = {spec.name: Engine(spec, arena, **special.get(spec.name, {})) for spec in (DECODER, ENCODER)}
    return [Check("m", name, engine, files[name]) for name, engine in engines.items()]


async def test_engines_that_answer_as_they_were_built_pass_and_leave_nothing(arena, files):
    assert await run(checks(arena, files), arena, 60) == {("m", "encoder"): True, ("m", "decoder"): True}
    assert arena.used_bytes() == 0
    assert all(not arena._slots.pinned(index) for index in range(arena.count))


@pytest.mark.parametrize("which", ["encoder", "decoder"])
async def test_one_that_answers_otherwise_fails(arena, files, which):
    found = await run(checks(arena, files, **{which: {"wrong": 1.5}}), arena, 60)
    assert found["m", which] is False
    assert arena.used_bytes() == 0


async def test_one_that_fails_outright_fails_and_one_that_is_away_for_a_moment_does_not(arena, files):
    failing = {"faults": [Fault(Kind.ENGINE_FAILED, "no")]}
    away = {"faults": [Fault(Kind.ENGINE_UNAVAILABLE, "later")] * 2}
    found = await run(checks(arena, files, encoder=away, decoder=failing), arena, 60)
    assert found == {("m", "encoder"): True, ("m", "decoder"): False}


async def test_one_that_never_answers_is_told_with_what_to_set(arena, files):
    gone = {"faults": [Fault(Kind.DEADLINE, "passed")]}
    with pytest.raises(SetupError, match=r"engine encoder did not answer its self-check within 60 s: .*CALL_TIMEOUT_S"):
        await run(checks(arena, files, encoder=gone), arena, 60)
    assert arena.used_bytes() == 0


async def test_one_that_was_built_elsewhere_is_left_out(arena, files):
    files["decoder"].unlink()
    assert await run(checks(arena, files), arena, 60) == {("m", "encoder"): True}


async def test_it_waits_for_a_slot(arena, files):
    held = [arena.claim(f"{n}") for n in range(arena.count)]
    task = asyncio.create_task(run(checks(arena, files), arena, 60))
    await asyncio.sleep(0.01)
    assert not task.done()
    held.clear()
    assert all((await asyncio.wait_for(task, 60)).values())


async def test_versions_of_one_engine_pass_together_or_not_at_all(arena, files):
    good = checks(arena, files)
    bad = Check("m", "decoder", Engine(DECODER, arena, wrong=2.0), files["decoder"])
    for order in ([*good, bad], [bad, *good]):
        assert (await run(order, arena, 60))["m", "decoder"] is False


class Memo:
    """Remembers while it lives."""

    def __init__(self):
        self.notes = set()

    async def remembers(self, region, note):
        return (region, note) in self.notes

    async def note(self, region, note):
        self.notes.add((region, note))


async def test_engines_that_passed_are_asked_again_by_another_server_or_of_another_build_alone(arena, files):
    memo = Memo()
    assert all((await once(checks(arena, files), arena, memo, "r", 60)).values())
    broken = {"encoder": {"wrong": 1.5}}
    assert await once(checks(arena, files, **broken), arena, memo, "r", 60) == {("m", "encoder"): True, ("m", "decoder"): True}
    assert not all((await once(checks(arena, files, **broken), arena, Memo(), "r", 60)).values())
    selfcheck.save(files["decoder"], DRAWN["decoder"], {"mask": np.zeros((1, 4))})
    assert not all((await once(checks(arena, files), arena, memo, "r", 60)).values())


async def test_engines_that_fail_are_asked_by_the_next_replica_too(arena, files):
    memo = Memo()
    await once(checks(arena, files, decoder={"wrong": 1.5}), arena, memo, "r", 60)
    assert not memo.notes
    assert all((await once(checks(arena, files), arena, memo, "r", 60)).values())


async def test_replicas_that_start_together_take_turns_and_the_second_need_not_ask(arena, files):
    memo, made = Memo(), checks(arena, files)
    encoder = next(check.engine for check in made if check.engine_name == "encoder")
    asked, answer = [], encoder.infer

    async def slowly(*given, **more):
        asked.append(given)
        await asyncio.sleep(0.2)
        return await answer(*given, **more)

    encoder.infer = slowly
    found = await asyncio.gather(*(once(made, arena, memo, "r", 60) for _ in range(2)))
    assert found == [{("m", "encoder"): True, ("m", "decoder"): True}] * 2
    assert len(asked) == 1
