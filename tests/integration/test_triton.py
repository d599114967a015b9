"""The embedded Triton and the engines over it: how it starts, how it refuses to, what it computes, what it leaves."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from arenas import small_arena
from running import command_line, descendants, is_alive, wait_until

from serving import shm, slots
from serving.build import config, weights
from serving.build.catalogue import find
from serving.build.nets import litemedsam
from serving.domain.image import Frame
from serving.domain.request import Deadline
from serving.embeddings.arena import Arena
from serving.embeddings.store import FeaturesStore, Subject
from serving.engines import selfcheck
from serving.engines.line import Line
from serving.engines.triton import TritonServer
from serving.errors import Fault, Kind, SetupError
from serving.families.litemedsam.engines import FEATURES, specs
from serving.local import echo
from serving.local.supervise import Supervisor
from serving.local.triton import EmbeddedTriton
from serving.manifest import EngineRecord, read_all
from serving.pools.selfcheck import Check
from serving.pools.selfcheck import run as run_selfcheck
from serving.settings import Settings, load

pytestmark = pytest.mark.integration
REPOSITORY = Settings().repository.path
LIGHT = ("synthetic_cxr_text_encoder",)
PARTS = ("image_encoder", "mask_decoder", "mask_refiner")
SIZES = [4 * int(np.prod(spec.shape)) for spec in FEATURES]
SLOT_BYTES = slots.offsets(SIZES)[-1]
AWAY = (Kind.ENGINE_UNAVAILABLE, Kind.ENGINE_FAILED)
LONG_S = 120
"""Of deadlines that are not to pass: the machine is shared."""


def embedded(run_dir, models=LIGHT, **more):
    run_dir.mkdir(parents=True, exist_ok=True)
    return EmbeddedTriton(more.pop("repository", REPOSITORY), models, run_dir, start_timeout_s=LONG_S, **more)


@pytest.fixture(scope="module")
def manifest():
    return read_all(REPOSITORY, ("litemedsam",))[0]


@pytest.fixture(scope="module")
def lite():
    """LiteMedSAM as PyTorch, from the pulled checkpoint."""
    return litemedsam.load(weights.read(weights.pull(find("litemedsam"), load().home, print).path))


def variants(manifest):
    """Further engines on the built artefacts: (name, part, configuration).

    "region_": Features as tensors, by the very text that a native backend gets.
    """
    for part in PARTS[:2]:
        spec = specs(manifest)[part]
        native = config.tensorrt(spec).replace("tensorrt", "openvino").replace("model.plan", "model.xml")
        yield f"region_{part}", part, native.replace("KIND_GPU", "KIND_CPU")


@pytest.fixture(scope="module")
def repository(tmp_path_factory, manifest):
    """The built engines and the variants of them."""
    made = tmp_path_factory.mktemp("repository")
    for part in PARTS:
        (made / specs(manifest)[part].name).symlink_to(REPOSITORY / specs(manifest)[part].name)
    for name, part, text in variants(manifest):
        spec = specs(manifest)[part]
        assert "READS" not in text or not name.startswith("region_")
        for path in (made / name / "config.pbtxt", made / name / "configs" / "cpu.pbtxt"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(f'name: "{spec.name}"', f'name: "{name}"'))
        (made / name / "1").symlink_to(REPOSITORY / spec.name / "1")
    return made


@dataclass
class Node:
    """A Triton and its arena, as a replica on the same node uses them."""

    triton: EmbeddedTriton
    arena: Arena
    server: TritonServer
    manifest: object

    def engine(self, part, prefix=""):
        """The engine of a part; with a prefix, a variant of it."""
        record = self.manifest.engines[part][0]
        if prefix:
            features = "region" if prefix == "region_" else "slot"
            record = EngineRecord(name=prefix + part, digest="d", features=features)
        return self.server.engine(specs(self.manifest)[part], record)

    async def encode(self, key, image, prefix=""):
        """The slot with the Features of an image."""
        slot = self.arena.claim(key)
        assert not isinstance(slot, str), slot
        assert await self.engine("image_encoder", prefix).infer({"image": image}, Deadline.after(LONG_S), slot=slot) == {}
        self.arena.commit(slot, f"h.{key}", b"")
        return slot

    async def decode(self, slot, prompt, prefix="", part="mask_decoder", **more):
        return await self.engine(part, prefix).infer(prompt, Deadline.after(LONG_S), slot=slot, **more)

    def features(self, slot):
        """name -> a copy of what lies in the slot."""
        place = np.fromfile(shm.ROOT / slot.region, np.uint8, SLOT_BYTES, offset=slot.offset)
        starts = slots.offsets(SIZES)
        return {
            spec.name: place[start : start + size].view(np.float32).reshape(1, *spec.shape)
            for spec, start, size in zip(FEATURES, starts, SIZES, strict=False)
        }

    def stub(self, engine):
        """The pid of an engine's process."""
        stubs = [pid for pid in descendants(self.triton.pid) if re.search(rf"stub .*/{engine}/", command_line(pid))]
        assert len(stubs) == 1, [command_line(pid) for pid in descendants(self.triton.pid)]
        return stubs[0]


@contextmanager
def running(run_dir, models, **more):
    with (
        small_arena(slots=6, slot_bytes=SLOT_BYTES, ttl_s=3600) as arena,
        embedded(run_dir, models, arena=arena.region, **more) as triton,
    ):
        yield triton, arena


@pytest.fixture(scope="module")
def parts(tmp_path_factory, repository, manifest):
    models = [specs(manifest)[part].name for part in PARTS] + [name for name, *_ in variants(manifest)]
    with running(tmp_path_factory.mktemp("triton"), models, repository=repository) as made:
        yield made


@pytest.fixture(scope="module")
def triton(parts):
    return parts[0]


@pytest.fixture
async def node(parts, manifest):
    triton, arena = parts
    server = TritonServer(triton.grpc_address, LONG_S, arena.nbytes)
    yield Node(triton, arena, server, manifest)
    await server.close()
    for index in range(arena.count):  # each test begins with an empty arena
        arena.drop(shm.Slot(arena.region, index, int(arena._slots.table[index]["generation"]), 0))


def picture(seed):
    """A smooth image (1, 3, 256, 256) with a disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    disc = np.hypot(x - 100 - 5 * seed, y - 128) < 30 + 4 * seed
    return np.repeat((0.2 + 0.5 * disc + rng.normal(0, 0.02, (256, 256))).clip(0, 1)[None, None], 3, 1).astype(np.float32)


def boxes(*several):
    """Objects as boxes of the model frame."""
    points = np.array(several, np.float32).reshape(1, -1, 2, 2)
    return {"points": points, "labels": np.tile([litemedsam.TOP, litemedsam.BOTTOM], (1, len(several), 1))}


PROMPT = boxes((60, 80, 150, 180), (20, 20, 90, 100))


def tensors(arrays):
    return [torch.from_numpy(value) for value in arrays.values()]


def near(one, other, part=1e-4):
    return np.abs(one - other).max() <= part * np.abs(other).max()


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


async def outcome(awaitable):
    """The answer, or the Fault as a value."""
    try:
        return await awaitable
    except Fault as fault:
        return fault


async def kind_of(awaitable):
    """The kind of the Fault that is raised, or None. The error itself is let go: its frames hold what they worked on."""
    return getattr(await outcome(awaitable), "kind", None)


async def once_back(call, *away):
    """The first answer of what is coming back; until then it may only be away."""
    async with asyncio.timeout(LONG_S):
        while isinstance(found := await outcome(call()), Fault):
            assert found.kind in away
            await asyncio.sleep(0.1)
    return found


async def until(condition):
    """Wait for a condition with the event loop at work."""
    await asyncio.to_thread(wait_until, condition, LONG_S, 0.01)


# What is computed


MASKS = ("mask", "iou", "masks", "ious")
EARLIER = {"logits": np.zeros((1, 2, 1, 256, 256), np.float32), "earlier": np.ones((1, 2), np.float32)}


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


# Parts that are killed


async def given_up(node, image):
    """An encode in flight whose slot nobody but the engine holds: what a replica that dies leaves. (index, task)."""
    gone = Arena(node.arena.region)
    slot = gone.claim("in flight")
    name = shm.Slot(slot.region, slot.index, slot.generation, slot.offset)
    del slot
    # `del` lets the reservation's lock go; its record stays, as after a crash.
    task = asyncio.create_task(node.engine("image_encoder").infer({"image": image}, Deadline.after(LONG_S), slot=name))
    await until(lambda: task.done() or node.arena._slots.pinned(name.index))
    assert not task.done()
    gone.close()
    return name.index, task


async def test_a_dead_replica_s_encode_keeps_its_slot_until_it_is_done(node):
    index, task = await given_up(node, picture(1))
    others = [node.arena.claim(f"{n}") for n in range(node.arena.count - 1)]
    assert index not in {each.index for each in others}
    await task
    await until(lambda: not node.arena._slots.pinned(index))
    assert node.arena.get("in flight") is None
    assert node.arena.claim("next").index == index


@pytest.fixture(scope="module")
def watched(tmp_path_factory, repository, manifest):
    """A server of its own with its supervisor: its parts are killed."""
    models = [specs(manifest)[part].name for part in PARTS[:2]] + ["region_mask_decoder"]
    with running(tmp_path_factory.mktemp("watched"), models, repository=repository) as (triton, arena):
        supervisor = Supervisor(triton)
        supervisor.start()
        yield triton, arena, supervisor
        supervisor.stop()


@pytest.mark.parametrize("victim", ["encoder", "server"])
async def test_what_is_killed_while_it_encodes_comes_back_and_nothing_is_answered_wrongly(watched, manifest, victim):
    """No slot is lost, nobody finds the half-written one, and Features from before the kill are there after it."""
    triton, arena, supervisor = watched
    server, restarts = TritonServer(triton.grpc_address, 30, arena.nbytes), supervisor.restarts
    node = Node(triton, arena, server, manifest)
    slot = await node.encode(f"before {victim}", picture(3))
    before, masks = node.features(slot), await node.decode(slot, PROMPT, "region_")
    assert same(await node.decode(slot, PROMPT), masks), "laid in memory that the next server is not told of yet"
    index, task = await given_up(node, picture(1))
    os.kill(triton.pid if victim == "server" else node.stub("litemedsam_image_encoder"), signal.SIGKILL)
    assert await kind_of(asyncio.wait_for(task, LONG_S)) in AWAY
    assert arena.get("in flight") is None
    await until(lambda: supervisor.restarts == restarts + 1)
    assert not arena._slots.pinned(index)
    for prefix in ("", "region_"):
        assert same(await once_back(partial(node.decode, slot, PROMPT, prefix), *AWAY), masks)
    store = FeaturesStore(arena, 60)

    async def encode(place):
        await node.engine("image_encoder").infer({"image": picture(3)}, Deadline.after(LONG_S), slot=place)

    subject = Subject(f"after {victim}", f"h.{victim}", "t", "m", Frame((1, 1)), (1, 1))
    features, how = await once_back(partial(store.get_or_encode, subject, encode), *AWAY)
    assert how == "miss"
    assert same(node.features(features.slot), before)
    del features, slot
    await until(lambda: not any(arena._slots.pinned(each) for each in range(arena.count)))
    await server.close()


# Starting and stopping


def test_an_engine_without_its_arena_does_not_load(tmp_path, manifest):
    name = specs(manifest)["mask_decoder"].name
    with pytest.raises(SetupError, match=f"model {name} does not load"):
        embedded(tmp_path / "run", (name,)).start()


def test_the_echo_comes_back_and_garbling_is_noticed(triton, monkeypatch):
    echo.check(triton.grpc_address)
    monkeypatch.setattr(echo, "_body", lambda client, sent: np.zeros(0, np.float32))
    with pytest.raises(SetupError, match="numpy below 2"):
        echo.check(triton.grpc_address)


def test_a_taken_port_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=str(port)):
            embedded(tmp_path / "run", grpc_port=port).start()


def test_a_model_that_is_not_built_or_does_not_load_is_named(tmp_path):
    with pytest.raises(SetupError, match="nobody is not built"):
        embedded(tmp_path / "a", ("nobody",)).start()
    broken = tmp_path / "repository" / "broken"
    (broken / "1").mkdir(parents=True)
    (broken / "configs").mkdir()
    (broken / "1" / "model.onnx").write_bytes(b"no graph")
    source = (REPOSITORY / LIGHT[0] / "configs" / "cpu.pbtxt").read_text().replace(LIGHT[0], "broken")
    (broken / "configs" / "cpu.pbtxt").write_text(source)
    (broken / "config.pbtxt").write_text(source)
    with pytest.raises(SetupError, match=r"model broken does not load .*triton\.log") as caught:
        embedded(tmp_path / "b", ("broken",), repository=tmp_path / "repository").start()
    assert "\n" not in str(caught.value)


def test_too_little_shared_memory_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.local.triton.MIN_SHM_BYTES", 1 << 60)
    with pytest.raises(SetupError, match="--shm-size"):
        embedded(tmp_path / "run").start()


def test_a_missing_wheel_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match="nvidia-pytriton"):
        embedded(tmp_path / "run").start()


def test_a_killed_parent_leaves_no_server_and_the_next_start_sweeps_its_memory(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from serving.local.triton import EmbeddedTriton\n"
        f"t = EmbeddedTriton(Path({str(REPOSITORY)!r}), {LIGHT!r}, Path(sys.argv[1]), start_timeout_s=60)\n"
        "t.start(); print(t.pid, flush=True); time.sleep(600)\n"
    )
    (tmp_path / "child").mkdir()
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "child")], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    left = shm.prefix(parent.pid)
    assert list(Path("/dev/shm").glob(f"{left}*"))
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid), 5)
    with embedded(tmp_path / "next"):
        assert not list(Path("/dev/shm").glob(f"{left}*"))


def test_a_clean_stop_leaves_no_memory(tmp_path):
    with embedded(tmp_path / "run") as running:
        pid = running.pid
        assert is_alive(pid)
    assert not is_alive(pid)
