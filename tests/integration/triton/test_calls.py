"""What is refused and what fails: stale names, deadlines, a full line, an engine's own failure."""

import asyncio

import pytest
from engine_node import EARLIER, LONG_S, PROMPT, boxes, kind_of, near, picture, same

from serving import shm
from serving.domain.request import Deadline
from serving.engines.line import Line
from serving.errors import Fault, Kind

pytestmark = pytest.mark.integration


# Stale names


@pytest.mark.parametrize(("part", "more"), [("mask_decoder", {}), ("mask_refiner", EARLIER)])
async def test_a_stale_slot_is_told_and_never_answered_from(node, part, more):
    prompt = {**PROMPT, **more}
    slot = await node.encode("a", picture(1))
    before = await node.decode(slot, prompt, part=part)
    stale = shm.Slot(slot.region, slot.index, slot.generation, slot.offset)
    node.arena.drop(slot)
    assert same(await node.decode(slot, prompt, part=part), before), "who was given it before works on"
    del slot
    held = [await node.encode(f"{n}", picture(2 + n)) for n in range(node.arena.count)]
    assert stale.index in {each.index for each in held}
    for name in (stale, shm.Slot(stale.region, 99, 1, 0), shm.Slot(stale.region, -1, 1, 0)):
        assert await kind_of(node.decode(name, prompt, part=part)) is Kind.UNKNOWN_HANDLE
    assert (await node.decode(held[0], prompt, part=part))["mask"].shape == (1, 2, 1, 256, 256)


async def test_a_slot_that_is_not_filled_yet_is_not_read_and_a_filled_one_not_written(node):
    reserved = node.arena.claim("a")
    assert await kind_of(node.decode(reserved, PROMPT)) is Kind.UNKNOWN_HANDLE
    slot = await node.encode("b", picture(1))
    before = node.features(slot)
    encode = node.engine("image_encoder").infer({"image": picture(2)}, Deadline.after(LONG_S), slot=slot)
    assert await kind_of(encode) is Kind.UNKNOWN_HANDLE
    assert same(node.features(slot), before)


async def test_an_encode_that_was_given_up_before_it_began_is_not_done(node):
    slot = node.arena.claim("a")
    node.arena.drop(slot)
    encode = node.engine("image_encoder").infer({"image": picture(2)}, Deadline.after(LONG_S), slot=slot)
    assert await kind_of(encode) is Kind.UNKNOWN_HANDLE


# Failures


async def test_an_engine_that_fails_says_no_more_than_that(node):
    slot = await node.encode("a", picture(1))
    given = {**boxes(*[(1, 1, 99, 99)] * 3), **EARLIER}
    with pytest.raises(Fault) as caught:
        await node.decode(slot, given, part="mask_refiner")
    assert caught.value.kind is Kind.ENGINE_FAILED
    assert "onnx" not in caught.value.message.lower()
    assert (await node.decode(slot, PROMPT))["mask"].shape == (1, 2, 1, 256, 256)


async def test_a_passed_deadline_is_told(node):
    slot = node.arena.claim("a")
    with pytest.raises(Fault) as caught:
        await node.engine("image_encoder").infer({"image": picture(0)}, Deadline.after(0.05), slot=slot)
    assert caught.value.kind is Kind.DEADLINE


async def test_calls_that_come_while_an_engine_works_are_all_answered_in_its_plain_queue(node):
    """No policy: none is refused for the queue's length or its time there; the line before the engine sees to both."""
    slot = await node.encode("a", picture(1))
    alone = await node.decode(slot, PROMPT, outputs=("iou",))
    found = await asyncio.gather(*(node.decode(slot, PROMPT, outputs=("iou",)) for _ in range(80)))
    assert all(near(each["iou"], alone["iou"], 1e-5) for each in found)


async def test_a_full_line_is_told_at_once(node):
    slot = await node.encode("a", picture(1))
    line = Line(node.engine("mask_decoder"), in_flight=1, most_rows=1, longest=3)
    calls = [line.infer(PROMPT, Deadline.after(LONG_S), outputs=("iou",), slot=slot) for _ in range(9)]
    kinds = await asyncio.gather(*(kind_of(call) for call in calls))
    assert kinds.count(Kind.POOL_FULL) == 5
    assert kinds.count(None) == 4


async def test_a_call_whose_deadline_passes_in_the_line_is_not_sent(node):
    slot = await node.encode("a", picture(1))
    engine, sent = node.engine("mask_decoder"), []
    original = engine.infer

    async def slowly(inputs, *given, **more):
        sent.append(inputs)
        await asyncio.sleep(0.5)
        return await original(inputs, *given, **more)

    engine.infer = slowly
    line = Line(engine, in_flight=1, most_rows=1)
    first = asyncio.create_task(line.infer(PROMPT, Deadline.after(LONG_S), slot=slot))
    await asyncio.sleep(0)
    assert await kind_of(line.infer(PROMPT, Deadline.after(0.05), slot=slot)) is Kind.DEADLINE
    await first
    assert len(sent) == 1
