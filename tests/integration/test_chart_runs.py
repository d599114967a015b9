"""What the chart renders, run here in place of a pod: the init container, Triton with its arguments, the Serve config, the
exporter. Only paths, ports and the region's name are this test's own."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import helm
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from running import STOP_S, Medserve, wait_until
from tritonclient.utils import InferenceServerException

from serving import shm
from serving.client import Client, GrpcClient
from serving.engines.triton import KEY_HEADER, TritonServer
from serving.errors import Fault
from serving.local.ports import free_ports
from serving.settings import Settings, load
from serving.slots import Slots

pytestmark = pytest.mark.integration
START_S = 180
KEY = "only-this-pod"
REPOSITORY = Settings().repository.path
VALUES = {"router": {"replicas": 1}, "pools": {"contrastive": None}, "settings": {"features": {"budget_bytes": 100_000_000}}}


def answers(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()
    except OSError:
        return 0, b""


def only(objects, kind):
    assert isinstance(objects, list), objects
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


@contextmanager
def program(command, environ, log):
    """A process of its own group, ended with what it started."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, env=environ, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.stdin.close()
            process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def pod():
    """The adaptive pool's pod, prepared, with its Triton up."""
    rendered = helm.render({name: helm.profile(name, **VALUES) for name in ("cpu", "standalone")})
    service = only(rendered["cpu"], "RayService")["spec"]
    toml, alone = (only(rendered[name], "ConfigMap")["data"]["settings.toml"] for name in ("cpu", "standalone"))
    groups = {each["groupName"]: each for each in service["rayClusterConfig"]["workerGroupSpecs"]}
    spec = groups["adaptive"]["template"]["spec"]
    containers = {each["name"]: each for each in [*spec["initContainers"], *spec["containers"]]}
    with tempfile.TemporaryDirectory(prefix="m-") as name:
        run, models = Path(name) / "run", Path(name) / "models"
        (run / "metrics").mkdir(parents=True)
        (Path(name) / "r" / "ray").mkdir(parents=True)  # short: sockets lie deep in it
        grpc, http, metrics, serve_http, serve_grpc = free_ports(5)
        region = f"{shm.prefix()}pod"
        ours = {
            "/run/medserve": str(run),
            "/models/home": str(Settings().home),
            "/models": str(models),
            "/etc/medserve": name,
            "$(MEDSERVE_TRITON__KEY)": KEY,
            "=8001": f"={grpc}",
            ":8001": f":{grpc}",
            "=8101": f"={http}",
            "=8002": f"={metrics}",
            "0.0.0.0": "127.0.0.1",
            "medserve_features": region,
            "medserve_triton": f"{shm.prefix()}triton",
            "port: 8000": f"port: {serve_http}",
            "port: 9000": f"port: {serve_grpc}",
        }

        def here(text):
            for theirs, mine in ours.items():
                text = text.replace(theirs, mine)
            return text

        def environ(container):
            """As the pod sets it, the Secret's value included."""
            given = {each["name"]: here(each["value"]) for each in containers[container]["env"] if "value" in each}
            secret = {"MEDSERVE_TRITON__KEY": KEY} if container != "prepare" else {}
            outside = {key: value for key, value in os.environ.items() if not key.startswith("MEDSERVE_")}
            return outside | {"OMP_NUM_THREADS": "1"} | given | secret | {"HOME": name}

        def command(container):
            words = [*containers[container]["command"], *containers[container].get("args", [])]
            return [sys.executable if word == "python" else here(word) for word in words]

        (Path(name) / "settings.toml").write_text(here(toml))
        (Path(name) / "standalone.toml").write_text(here(alone))
        fill(models, command("prepare"))
        subprocess.run(command("prepare"), env=environ("prepare"), check=True, timeout=START_S, capture_output=True)
        log = Path(name) / "triton.log"
        try:
            with program(command("triton"), environ("triton"), log) as process:
                url = f"http://127.0.0.1:{http}"
                wait_until(lambda: process.poll() is not None or answers(f"{url}/v2/health/ready")[0] == 200, START_S)
                assert process.poll() is None, log.read_text()[-3000:]
                yield SimpleNamespace(
                    service=service,
                    groups=groups,
                    here=here,
                    environ=environ,
                    run=run,
                    models=models,
                    region=region,
                    folder=Path(name),
                    triton=f"127.0.0.1:{grpc}",
                    triton_http=url,
                    triton_metrics=f"http://127.0.0.1:{metrics}/metrics",
                    http=f"http://127.0.0.1:{serve_http}",
                    grpc=f"127.0.0.1:{serve_grpc}",
                )
        finally:
            shm.remove(region)


def fill(models, command):
    """The volume as the first pod left it: what `make build` built, in this release's folder."""
    from serving.deploy.prepare import key, processor

    release = next(word.removeprefix("--release=") for word in command if word.startswith("--release="))
    folder = models / key(release, processor())
    folder.mkdir(parents=True)
    for path in REPOSITORY.glob("litemedsam*"):
        (folder / path.name).symlink_to(path)


def test_the_init_container_leaves_what_the_pod_needs(pod):
    record = pod.models / "published" / "litemedsam.json"
    engines = {each["name"] for parts in json.loads(record.read_text())["engines"].values() for each in parts}
    assert {path.name for path in (pod.run / "repository").iterdir()} == {*engines, "litemedsam.json"}
    arena = Slots(pod.region)
    assert 0 < arena.nbytes <= 110_000_000
    arena.close()


def test_triton_keeps_its_memory_and_repository_to_who_has_the_key(pod):
    with triton_grpc.InferenceServerClient(pod.triton) as client:
        assert client.is_server_ready()
        for call in (
            lambda **headers: client.register_system_shared_memory("stolen", pod.region, 64, **headers),
            lambda **headers: client.get_system_shared_memory_status(**headers),
            lambda **headers: client.get_model_repository_index(**headers),
            lambda **headers: client.unload_model("litemedsam_mask_decoder", **headers),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
            with pytest.raises(InferenceServerException, match="restricted"):
                call(headers={KEY_HEADER: "guessed"})
        assert not client.get_system_shared_memory_status(headers={KEY_HEADER: KEY}).regions
    for path in ("/systemsharedmemory/status", "/models/litemedsam_mask_decoder/config", ""):
        assert answers(f"{pod.triton_http}/v2{path}")[0] == 403
    assert answers(f"{pod.triton_http}/v2/health/live")[0] == 200
    assert b"nv_inference_count" in answers(pod.triton_metrics)[1]


def test_a_replica_registers_the_arena_with_its_key_and_not_without(pod):
    async def share(key):
        server = TritonServer(pod.triton, 20, 64, key)
        try:
            await server.share(pod.region)
        finally:
            await server.close()

    asyncio.run(share(KEY))
    with pytest.raises(Fault):
        asyncio.run(share(""))
    with triton_grpc.InferenceServerClient(pod.triton) as client:
        assert list(client.get_system_shared_memory_status(headers={KEY_HEADER: KEY}).regions) == [pod.region]
        client.unregister_system_shared_memory(pod.region, headers={KEY_HEADER: KEY})


def test_the_serve_config_runs_and_a_box_becomes_a_mask(pod):
    config = pod.folder / "serve.yaml"
    config.write_text(pod.here(pod.service["serveConfigV2"]))
    offered = {}
    for group in pod.groups.values():
        each = json.loads(shlex.split(group["rayStartParams"]["resources"])[0])
        offered |= {name: amount * group["replicas"] for name, amount in each.items()}
    assert offered == {"router": 1, "adaptive": 2}
    log = pod.folder / "ray.log"
    command = [
        sys.executable,
        str(helm.ROOT / "tests" / "serve_config.py"),
        str(config),
        json.dumps(offered),
        str(pod.folder / "r"),
    ]
    # One process stands for both pods here: the pool's variables, which the router's pod lacks, but not its settings file.
    environ = pod.environ("ray") | {"MEDSERVE_CONFIG": "/nowhere"}
    with program(command, environ, log) as process:
        said = process.stdout.readline().strip()
        assert said == "running", said or log.read_text()[-3000:]
        wait_until(lambda: answers(f"{pod.http}/readyz")[0] == 200, START_S)
        with Client(pod.http) as over_http, GrpcClient(pod.grpc) as over_grpc:
            for client in (over_http, over_grpc):
                find_square(client)
        scraped = scrape(pod)
    assert 'medserve_requests_total{model="litemedsam",outcome="ok",pool="adaptive"' in scraped
    assert 'medserve_features_cache_total{outcome="miss",pool="adaptive"} ' in scraped


def find_square(client):
    image = np.full((64, 64), 40, np.uint8)
    image[16:48, 16:48] = 200
    found = client.segment(image, boxes=[(14, 14, 50, 50)])
    assert found.masks[0].array[32, 32]
    assert not found.masks[0].array[2, 2]


def scrape(pod):
    """The exporter's answer, asked as Prometheus does."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "serving.deploy.exporter", str(port)]
    with program(command, pod.environ("metrics"), pod.folder / "exporter.log"):
        return wait_until(lambda: answers(f"http://127.0.0.1:{port}/metrics")[1].decode(), START_S)


def test_the_settings_file_loads(pod):
    settings = load(pod.folder / "settings.toml", {})
    assert settings.shape == "apart"
    assert settings.features.budget_bytes == 100_000_000
    assert settings.pools.adaptive.resources == {"adaptive": 1}


def test_in_one_pod_medserve_uses_the_triton_beside_it(pod):
    environ = {"MEDSERVE_CONFIG": str(pod.folder / "standalone.toml"), "MEDSERVE_TRITON__KEY": KEY}
    with Medserve(**environ) as running, Client(running.http_url) as client:
        assert "starting Triton" not in running.log
        find_square(client)
    assert running.status == 0
    assert (shm.ROOT / pod.region).exists()
