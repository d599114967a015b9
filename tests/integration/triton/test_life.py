"""How the embedded Triton starts, how it refuses to, what is killed and comes back, what it leaves."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from engine_node import (
    AWAY,
    LIGHT,
    LONG_S,
    PARTS,
    PROMPT,
    REPOSITORY,
    Node,
    embedded,
    kind_of,
    once_back,
    picture,
    same,
    started,
    until,
)
from running import is_alive, wait_until

from serving import shm
from serving.domain.image import Frame
from serving.domain.request import Deadline
from serving.embeddings.arena import Arena
from serving.embeddings.store import FeaturesStore, Subject
from serving.engines.triton import TritonServer
from serving.errors import SetupError
from serving.families.litemedsam.engines import specs
from serving.local import echo
from serving.local.supervise import Supervisor

pytestmark = pytest.mark.integration


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
    with started(tmp_path_factory.mktemp("watched"), models, repository=repository) as (triton, arena):
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
