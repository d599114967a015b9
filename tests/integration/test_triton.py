"""The embedded Triton and the engines over it: how it starts, how it refuses to, what it computes, what it leaves."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import is_alive, wait_until

from serving import shm
from serving.domain.request import Deadline
from serving.embeddings.arena import Arena
from serving.engines.triton import TritonServer
from serving.errors import Fault, Kind, SetupError
from serving.families.litemedsam.engines import specs
from serving.local import echo
from serving.local.triton import EmbeddedTriton
from serving.manifest import read_all
from serving.settings import Settings

pytestmark = pytest.mark.integration
REPOSITORY = Settings().repository.path
ENGINES = ("litemedsam_prompt_encoder", "litemedsam_mask_decoder", "litemedsam_mask_refiner", "litemedsam_image_encoder")


def embedded(run_dir, models=ENGINES[:1], **more):
    run_dir.mkdir(parents=True, exist_ok=True)
    return EmbeddedTriton(more.pop("repository", REPOSITORY), models, run_dir, start_timeout_s=60, **more)


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("triton"), ENGINES) as running:
        yield running


@pytest.fixture
def manifest():
    return read_all(REPOSITORY, ("litemedsam",))[0]


def opened(server, manifest, part):
    return server.engine(specs(manifest)[part], manifest.engines[part][0])


def features(seed):
    return np.random.default_rng(seed).normal(0, 0.1, (1, 256, 64, 64)).astype(np.float32)


def sparse(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2, 256)).astype(np.float32)


async def test_a_batch_is_its_single_images(triton, manifest):
    server = TritonServer(triton.grpc_address, 60)
    encoder = opened(server, manifest, "image_encoder")
    images = np.random.default_rng(0).random((3, 3, 256, 256), np.float32)
    together = (await encoder.infer({"image": images}, Deadline.after(60)))["features"]
    for one, expected in zip(images, together, strict=True):
        alone = (await encoder.infer({"image": one[None]}, Deadline.after(60)))["features"][0]
        assert np.abs(alone - expected).max() <= 1e-4 * np.abs(expected).max()
    await server.close()


async def test_features_in_shared_memory_decode_as_those_in_the_message(triton, manifest):
    arena = Arena("test_triton", 4)
    sending, sharing = TritonServer(triton.grpc_address, 60), TritonServer(triton.grpc_address, 60, arena)
    for seed in range(4):
        given = {"features": features(seed), "sparse": sparse(2, seed)}
        sent = await opened(sending, manifest, "mask_decoder").infer(given, Deadline.after(60))
        placed = {**given, "features": arena.place(given["features"])}
        assert arena.locate(placed["features"]) is not None
        shared = await opened(sharing, manifest, "mask_decoder").infer(placed, Deadline.after(60))
        assert all(np.array_equal(sent[name], shared[name]) for name in sent)
    await sending.close()
    await sharing.close()
    arena.close()


async def test_a_restarted_server_is_told_of_the_region_again(tmp_path, manifest):
    arena = Arena("test_restart", 2)
    with embedded(tmp_path / "run", ENGINES[1:2]) as running:
        server = TritonServer(running.grpc_address, 30, arena)
        decoder = opened(server, manifest, "mask_decoder")
        given = {"features": arena.place(features(1)), "sparse": sparse(1)}
        first = await decoder.infer(given, Deadline.after(30), outputs=("mask",))
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(Fault) as caught:
            await decoder.infer(given, Deadline.after(5), outputs=("mask",))
        assert caught.value.kind is Kind.ENGINE_UNAVAILABLE
        running.restart()

        async def again():
            try:
                return await decoder.infer(given, Deadline.after(10), outputs=("mask",))
            except Fault:
                return None

        until, second = time.monotonic() + 20, None
        while second is None and time.monotonic() < until:
            second = await again()
        assert np.array_equal(first["mask"], second["mask"])
        await server.close()
    arena.close()


async def test_an_engine_that_fails_says_no_more_than_that(triton, manifest):
    server = TritonServer(triton.grpc_address, 30)
    refiner = opened(server, manifest, "mask_refiner")
    given = {"features": features(1), "sparse": sparse(3), "logits": np.zeros((2, 1, 256, 256), np.float32)}
    with pytest.raises(Fault) as caught:
        await refiner.infer(given, Deadline.after(30))
    assert caught.value.kind is Kind.ENGINE_FAILED
    assert "onnx" not in caught.value.message.lower()
    await server.close()


async def test_a_passed_deadline_is_told(triton, manifest):
    server = TritonServer(triton.grpc_address, 30)
    encoder, images = opened(server, manifest, "image_encoder"), np.zeros((4, 3, 256, 256), np.float32)
    with pytest.raises(Fault) as caught:
        await encoder.infer({"image": images}, Deadline.after(0.05))
    assert caught.value.kind is Kind.DEADLINE
    await server.close()


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
    source = (REPOSITORY / ENGINES[0] / "configs" / "cpu.pbtxt").read_text().replace(ENGINES[0], "broken")
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
        f"t = EmbeddedTriton(Path({str(REPOSITORY)!r}), {ENGINES[:1]!r}, Path(sys.argv[1]), start_timeout_s=60)\n"
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
