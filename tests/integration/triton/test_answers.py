"""What the engines compute: as PyTorch does, together as alone, through a slot or as tensors of the region; the self-check."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_node import LONG_S, PARTS, PROMPT, REPOSITORY, boxes, near, picture, same, until

from serving.build import weights
from serving.build.catalogue import find
from serving.build.nets import litemedsam
from serving.domain.request import Deadline
from serving.engines import selfcheck
from serving.engines.line import Line
from serving.engines.triton import TritonServer
from serving.families.litemedsam.engines import specs
from serving.manifest import EngineRecord
from serving.pools.selfcheck import Check
from serving.pools.selfcheck import run as run_selfcheck
from serving.settings import load

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def lite():
    """LiteMedSAM as PyTorch, from the pulled checkpoint."""
    return litemedsam.load(weights.read(weights.pull(find("litemedsam"), load().home, print).path))


def tensors(arrays):
    return [torch.from_numpy(value) for value in arrays.values()]


MASKS = ("mask", "iou", "masks", "ious")


@torch.inference_mode()
def modules(lite, image, logits):
    """What the PyTorch modules give: Features, SAM's own decoder on them, the refiner on them."""
    features = litemedsam.Encode(lite)(torch.from_numpy(image))
    clicked = litemedsam.ClickStock(lite)(*features, *tensors(PROMPT))
    refined = litemedsam.Refine(lite)(features[0], *tensors(PROMPT), torch.from_numpy(logits), torch.ones(1, 2))
    named = (
        dict(zip(("x0", "k0", "v0", "q0"), features, strict=True)),
        *(dict(zip(MASKS, x, strict=True)) for x in (clicked, refined)),
    )
    return [{name: value.numpy() for name, value in each.items()} for each in named]


async def test_the_engines_through_a_slot_are_the_pytorch_modules(node, lite):
    slot = await node.encode("a", picture(1))
    decoded = await node.decode(slot, PROMPT)
    logits = decoded["mask"].copy()
    refined = await node.decode(slot, {**PROMPT, "logits": logits, "earlier": np.ones((1, 2), np.float32)}, part="mask_refiner")
    for found, expected in zip((node.features(slot), decoded, refined), modules(lite, picture(1), logits), strict=True):
        assert found.keys() == expected.keys()
        assert all(near(found[name], expected[name]) for name in expected)


async def test_only_the_outputs_asked_for_come_and_are_the_same(node):
    slot = await node.encode("a", picture(1))
    everything = await node.decode(slot, PROMPT)
    some = await node.decode(slot, PROMPT, outputs=("masks", "ious"))
    assert list(some) == ["masks", "ious"]
    assert all(near(value, everything[name], 1e-5) for name, value in some.items())


async def test_encodes_at_the_same_time_are_those_of_one_at_a_time(node):
    alone = []
    for seed in range(3):
        alone.append(node.features(await node.encode(f"alone {seed}", picture(seed))))
    together = await asyncio.gather(*(node.encode(f"together {seed}", picture(seed)) for seed in range(3)))
    for one, slot in zip(alone, together, strict=True):
        assert all(near(value, one[name]) for name, value in node.features(slot).items())


async def test_calls_that_go_together_are_those_of_one_at_a_time(node):
    slots_of = [await node.encode(f"{seed}", picture(seed)) for seed in range(2)]
    asked = [(slot, boxes((40 + 5 * n, 60, 140 + 5 * n, 190))) for n in range(6) for slot in slots_of]
    alone = [await node.decode(slot, prompt, outputs=("mask", "iou")) for slot, prompt in asked]
    engine, calls = node.engine("mask_decoder"), []
    original = engine.infer

    async def counting(inputs, *given, **more):
        calls.append(inputs["points"].shape[1])
        return await original(inputs, *given, **more)

    engine.infer = counting
    line = Line(engine)
    joint = await asyncio.gather(
        *(line.infer(prompt, Deadline.after(LONG_S), outputs=("mask", "iou"), slot=slot) for slot, prompt in asked)
    )
    assert sum(calls) == 12
    assert max(calls) > 1
    for one, other in zip(joint, alone, strict=True):
        assert all(near(one[name], other[name]) for name in other)


# Features as tensors of the region


@pytest.mark.parametrize(("encoder", "decoder"), [("region_", ""), ("", "region_"), ("region_", "region_")])
async def test_features_as_tensors_of_the_region_give_the_same_masks(node, encoder, decoder):
    named, shared = await node.encode("slot", picture(2)), await node.encode("region", picture(2), encoder)
    assert same(node.features(named), node.features(shared))
    expected = await node.decode(named, PROMPT)
    assert same(await node.decode(shared, PROMPT, decoder), expected)


async def test_region_encodes_at_the_same_time_each_write_their_own_slot(node):
    alone = [node.features(await node.encode(f"alone {seed}", picture(seed), "region_")) for seed in range(3)]
    together = await asyncio.gather(*(node.encode(f"together {seed}", picture(seed), "region_") for seed in range(3)))
    for one, slot in zip(alone, together, strict=True):
        assert all(near(value, one[name]) for name, value in node.features(slot).items())


async def test_a_region_slot_whose_call_was_given_up_is_not_given_away(node):
    server = TritonServer(node.triton.grpc_address, 3, node.arena.nbytes)
    encoder = server.engine(
        specs(node.manifest)["image_encoder"], EngineRecord(name="region_image_encoder", digest="d", features="region")
    )
    slot = node.arena.claim("a")
    index = slot.index
    task = asyncio.create_task(encoder.infer({"image": picture(1)}, Deadline.after(LONG_S), slot=slot))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del slot, task
    assert node.arena._slots.pinned(index)
    await until(lambda: not node.arena._slots.pinned(index))
    await server.close()


# The self-check


def checks(node, files=REPOSITORY):
    """Every part of LiteMedSAM with the file that its build left."""
    records = {part: node.manifest.engines[part][0] for part in PARTS}
    return [
        Check("litemedsam", record.name, node.engine(part), Path(files) / record.name / record.version / selfcheck.FILE)
        for part, record in records.items()
    ]


async def test_the_engines_answer_as_they_did_when_they_were_built(node):
    found = await run_selfcheck(checks(node), node.arena, LONG_S)
    assert found == {("litemedsam", f"litemedsam_{part}"): True for part in PARTS}
    assert node.arena.used_bytes() == 0


async def test_an_engine_that_does_not_is_found_out(node, tmp_path):
    for check in checks(node):
        _, stored = selfcheck.load(check.file)
        wrong = {name: value[::-1] if "decoder" in check.engine_name else value for name, value in stored.items()}
        place = tmp_path / check.engine_name / "1" / selfcheck.FILE
        place.parent.mkdir(parents=True)
        with np.load(check.file) as held:
            np.savez(place, **{**held, **{f"out_{name}": value for name, value in wrong.items()}})
    found = await run_selfcheck(checks(node, tmp_path), node.arena, LONG_S)
    assert found == {("litemedsam", f"litemedsam_{part}"): part != "mask_decoder" for part in PARTS}


async def test_a_triton_remembers_what_passed_as_long_as_the_region_is_its(node):
    assert not await node.server.remembers(node.arena.region, "passed.1")
    await node.server.note(node.arena.region, "passed.1")
    assert await node.server.remembers(node.arena.region, "passed.1")
    another = TritonServer(node.triton.grpc_address, LONG_S, node.arena.nbytes)
    assert await another.remembers(node.arena.region, "passed.1")
    assert not await another.remembers(node.arena.region, "passed.2")
    await another.close()
