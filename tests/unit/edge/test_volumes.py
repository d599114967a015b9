"""Volumes over both fronts of one fake brain: streams, results, cancelling, resuming, bounds, bad input."""

import io
import itertools
import json
import os
import time
from contextlib import closing
from dataclasses import replace

import grpc
import httpx
import numpy as np
import pytest

from serving.client import AsyncClient, AsyncGrpcClient, Client, GrpcClient, MedserveError, volumes
from serving.client.decode import rle, rle_of
from serving.domain.image import LinearWindow
from serving.domain.prompt import Box
from serving.domain.request import Priority
from serving.domain.volume import KeyMask, VolumeFormat
from serving.edge import job_spool
from serving.edge.proto import inference_pb2 as pb
from serving.edge.proto.inference_pb2_grpc import InferenceStub
from serving.errors import Fault, Kind
from serving.router import dispatch
from serving.settings import AuthSettings, LimitSettings, Settings, VolumeSettings
from tests.unit.edge import fakes
from tests.unit.edge.fakes import FakeBrain
from tests.unit.edge.servers import serve

BOX = [1, 2, 1, 20, 30, 3]
WAIT_S = 20


def settings(folder, **volumes):
    said = {"max_running": 3, "max_jobs": 5, "spool": folder, **volumes}
    tokens = {"one": "token-1", "two": "token-2"}
    return Settings(
        limits=LimitSettings(max_body_bytes=1_000_000), volumes=VolumeSettings(**said), auth=AuthSettings(tokens=tokens)
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spool")
    with serve(settings(folder, max_body_bytes=3_000_000)) as served:
        served.folder = folder
        yield served


@pytest.fixture
def served(both):
    both.brain.__dict__.update(FakeBrain().__dict__)
    yield both
    wait_for(lambda: all((job / "ended").exists() for job in jobs_of(both)))
    for job in jobs_of(both):
        for file in job.iterdir():
            file.unlink()
        job.rmdir()


def jobs_of(served):
    return [path for path in served.folder.iterdir() if path.is_dir()]


def wait_for(condition):
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, "not true in time"
        time.sleep(0.02)


def http(served, tenant=1):
    return httpx.Client(base_url=served.url, headers={"authorization": f"Bearer token-{tenant}"}, timeout=WAIT_S)


def lines(response):
    return [json.loads(line) for line in response.text.splitlines()]


def begun(client, **said):
    """A stream that is open, its accepted event and the rest of its lines."""
    body = {"request": json.dumps({"boxes": [BOX], **said})}
    request = client.build_request("POST", "/v1/volumes/segment", files=[("volume", b"V")], data=body)
    response = client.send(request, stream=True)
    assert response.status_code == 200
    rest = response.iter_lines()
    return response, json.loads(next(rest)), rest


WAYS = {
    "multipart": {"files": [("volume", b"V"), ("request", (None, json.dumps({"boxes": [BOX]}), "application/json"))]},
    "the files of a series": {"files": [("volume", b"V"), ("volume", b"W")], "data": {"boxes": "1,2,1,20,30,3"}},
    "json": {"json": {"volume": "Vg==", "boxes": [BOX]}},
    "the body itself": {
        "content": b"V",
        "headers": {"content-type": "application/nifti"},
        "params": {"boxes": "1,2,1,20,30,3"},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_sending_streams_slice_by_slice(served, way):
    with http(served) as client:
        response = client.post("/v1/volumes/segment", **WAYS[way])
        assert response.headers["content-type"] == "application/x-ndjson"
        accepted, *progress, done = lines(response)
        assert (accepted["event"], accepted["total"], accepted["frame"]["size"]) == ("accepted", 6, [64, 48, 6])
        assert response.headers["location"] == f"/v1/volumes/{accepted['job']}"
        assert [(each["event"], each["done"], each["slice"]) for each in progress] == [("progress", n + 1, n) for n in range(6)]
        assert [each["seq"] for each in (accepted, *progress, done)] == list(range(8))
        assert done["objects"][0] == {"object": 0, "voxels": 12, "first": 1, "last": 3}
        result = client.get(done["result"])
    assert result.content.startswith(b"label map of V")
    assert len(result.content) == done["bytes"]
    assert result.headers["content-disposition"] == 'attachment; filename="mask.nii.gz"'
    request = served.brain.seen[0]
    assert request.priority is Priority.BULK
    assert request.task.objects[0].shown.box == Box(1, 2, 20, 30)
    assert (request.task.objects[0].first, request.task.objects[0].last) == (1, 3)


def test_the_general_form_is_understood_on_both_fronts(served):
    objects = [
        {"mask": np.zeros((6, 64), bool), "slice": 2, "first": 1, "last": 4},
        {"points": [[3, 4, 1], [5, 6, 0]], "slice": 0},
    ]
    said = {"objects": objects, "window": {"center": 40, "width": 400}, "axis": 1, "output": "packed"}
    with Client(served.url, token="token-1") as client, GrpcClient(served.address, token="token-1") as other:
        client.segment_volume(b"V", boxes=[[1, 0, 5, 4]], slice=7, **said)
        other.segment_volume(b"V", boxes=[[1, 0, 5, 4]], slice=7, **said)
    first, second = (request.task for request in served.brain.seen)
    assert first.axis == second.axis == 1
    assert first.output is second.output is VolumeFormat.PACKED
    assert first.volume.window == second.volume.window == LinearWindow(40, 400)
    for task in (first, second):
        box, key, points = task.objects
        assert (box.key, box.first, box.shown.box) == (7, None, Box(1, 0, 5, 4))
        assert isinstance(key.shown, KeyMask)
        assert (key.key, key.first, key.last, key.shown.mask.shape) == (2, 1, 4, (6, 64))
        assert [(p.x, p.positive) for p in points.shown.points] == [(3, True), (5, False)]


def test_one_object_is_shown_by_a_box_on_each_slice_on_both_fronts(served):
    shown = [{"box": [1, 2, z, 20 + z, 30, z], "label": 0} for z in (3, 1, 2)] + [{"box": [1, 0, 5, 4], "slice": 2, "label": 1}]
    with Client(served.url, token="token-1") as client, GrpcClient(served.address, token="token-1") as other:
        client.segment_volume(b"V", objects=shown)
        other.segment_volume(b"V", objects=shown)
    for task in (request.task for request in served.brain.seen):
        assert [(each.label, each.first, each.last) for each in task.objects] == [
            (0, 3, 3),
            (0, 1, 1),
            (0, 2, 2),
            (1, None, None),
        ]
        assert task.objects[0].shown.box == Box(1, 2, 23, 30)


def test_class_names_with_a_support_set_are_understood_on_both_fronts(served, monkeypatch):
    sam = fakes.SERVED[0]
    monkeypatch.setattr(fakes, "SERVED", (replace(sam, prompts=(dispatch.CLASSES,)),))
    with Client(served.url, token="token-1") as client, GrpcClient(served.address, token="token-1") as other:
        for front in (client, other):
            told = []
            front.segment_volume(b"V", classes=["liver", "kidney"], supports="abdomen", progress=told.append)
            assert [(each.stage, each.done, each.slice) for each in told[:4]] == [
                ("locate", 0, None),
                ("locate", 1, None),
                ("locate", 2, None),
                ("segment", 1, 0),
            ]
            with pytest.raises(MedserveError, match="the support set says where to look") as caught:
                front.segment_volume(b"V", classes=["liver"], supports="abdomen", boxes=[BOX])
            assert (caught.value.code, caught.value.param) == ("invalid", "classes")
            with pytest.raises(MedserveError, match="needs the names of the structures"):
                front.segment_volume(b"V", supports="abdomen")
    asked = [request.task.objects for request in served.brain.seen]
    assert [(each.names, each.supports) for each in asked] == [(("liver", "kidney"), "abdomen")] * 2


def test_a_job_that_looks_for_its_structures_says_how_far_it_is_and_is_cancelled_there(served, monkeypatch):
    monkeypatch.setattr(fakes, "SERVED", (replace(fakes.SERVED[0], prompts=(dispatch.CLASSES,)),))
    served.brain.volume_step_s = 0.1

    def stop(progress):
        assert progress.stage == "locate"
        raise KeyboardInterrupt

    asked = {"volume": "Vg==", "classes": ["liver"], "supports": "abdomen"}
    with http(served) as client:
        events = lines(client.post("/v1/volumes/segment", json=asked))
        assert [each["event"] for each in events] == ["accepted", *["locating"] * 3, *["progress"] * 6, "done"]
        assert events[1] == {"seq": 1, "event": "locating", "done": 0, "total": 2}
    for number, made in enumerate((Client(served.url, token="token-1"), GrpcClient(served.address, token="token-1")), start=1):
        with made as client, pytest.raises(KeyboardInterrupt):
            client.segment_volume(b"V", classes=["liver"], supports="abdomen", progress=stop)
        assert served.brain.cancelled == number


def test_rle_of_a_mask_is_cocos():
    for mask in (
        np.eye(7, 5) > 0,
        np.zeros((4, 3), bool),
        np.ones((4, 3), bool),
        np.random.default_rng(0).random((90, 70)) > 0.4,
    ):
        assert np.array_equal(rle(rle_of(mask), *mask.shape), mask)


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_the_clients_give_the_file_and_tell_progress(served, wire):
    made = Client(served.url, token="token-1") if wire == "http" else GrpcClient(served.address, token="token-1")
    told = []
    with made as client:
        found = client.segment_volume([b"V", b"W"], boxes=[BOX], progress=told.append, output="nrrd")
    assert found.data == b"label map of V|W"
    assert found.format == "nrrd"
    assert [(each.done, each.total, each.slice) for each in told] == [(n + 1, 6, n) for n in range(6)]
    assert (found.objects[0].voxels, found.objects[1].first) == (12, None)
    assert found.frame.affine[0] == (0.5, 0, 0, 1)
    assert found.model.name == "sam"
    wait_for(lambda: not jobs_of(served))  # the client forgets what it has fetched


async def test_the_async_clients_do_too(served):
    told = []
    async with AsyncClient(served.url, token="token-1") as one, AsyncGrpcClient(served.address, token="token-1") as other:
        first = await one.segment_volume(b"V", boxes=[BOX], progress=told.append)
        second = await other.segment_volume(b"V", boxes=[BOX], progress=told.append)
    assert first.data == second.data == b"label map of V"
    assert len(told) == 12


def test_a_client_that_leaves_cancels_the_job(served):
    served.brain.volume_step_s = 0.3
    with http(served) as client:
        response, accepted, rest = begun(client)
        next(rest)
        response.close()
        wait_for(lambda: served.brain.cancelled == 1)
        wait_for(lambda: "cancelled" in client.get(f"/v1/volumes/{accepted['job']}").text)
        assert client.get(f"/v1/volumes/{accepted['job']}/result").status_code == 404


def test_a_job_that_is_kept_is_taken_up_again(served):
    served.brain.volume_step_s = 0.2
    with http(served) as client:
        response, accepted, rest = begun(client, keep=True)
        seen = json.loads(next(rest))
        response.close()
        again = lines(client.get(f"/v1/volumes/{accepted['job']}", params={"after": seen["seq"]}))
        assert [each["seq"] for each in again] == list(range(seen["seq"] + 1, 8))
        assert again[-1]["event"] == "done"
        assert client.get(again[-1]["result"]).content == b"label map of V"
    assert served.brain.cancelled == 0


def test_a_job_is_found_and_cancelled_by_another_replica(served):
    served.brain.volume_step_s = 0.2
    with serve(settings(served.folder)) as other, http(served) as client, http(other) as elsewhere:
        _, accepted, _ = begun(client, keep=True)
        path = f"/v1/volumes/{accepted['job']}"
        with elsewhere.stream("GET", path) as followed:
            first = [json.loads(line)["event"] for line in itertools.islice(followed.iter_lines(), 3)]
        assert first == ["accepted", "progress", "progress"]
        assert elsewhere.delete(path).json() == {"job": accepted["job"], "state": "cancelled"}
        assert served.brain.cancelled == 1
        assert client.get(path).status_code == 404


def test_grpc_cancels_with_its_call_and_follows_a_kept_job(served):
    served.brain.volume_step_s = 0.2
    said = [("authorization", "Bearer token-1")]
    asked = {
        "volume": pb.Volume(files=[b"V"]),
        "objects": [pb.VolumeObject(box=pb.Box(x0=1, y0=2, x1=20, y1=30), first=1, last=3)],
    }
    with closing(grpc.insecure_channel(served.address)) as channel:
        stub = InferenceStub(channel)
        call = stub.SegmentVolume(pb.SegmentVolumeRequest(**asked), metadata=said)
        next(call)
        call.cancel()
        wait_for(lambda: served.brain.cancelled == 1)
        call = stub.SegmentVolume(pb.SegmentVolumeRequest(**asked, keep=True), metadata=said)
        job = next(call).job
        call.cancel()
        events = list(stub.FollowVolume(pb.FollowVolumeRequest(job=job, after=2), metadata=said))
        assert [each.seq for each in events if not each.piece] == [3, 4, 5, 6, 7]
        assert b"".join(each.piece for each in events) == b"label map of V"
        assert stub.DeleteVolume(pb.DeleteVolumeRequest(job=job), metadata=said).state == "deleted"
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.FollowVolume(pb.FollowVolumeRequest(job=job), metadata=said))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert served.brain.cancelled == 1


def test_a_job_is_its_tenant_s_alone(served):
    with http(served) as mine, http(served, 2) as theirs:
        job = lines(mine.post("/v1/volumes/segment", **WAYS["json"]))[0]["job"]
        for method, path in (("GET", job), ("GET", f"{job}/result"), ("DELETE", job)):
            assert theirs.request(method, f"/v1/volumes/{path}").json()["error"]["code"] == "not_found"
        assert mine.get(f"/v1/volumes/{job}/result").status_code == 200
        for name in ("0" * 32, "..", "a" * 31, "lock"):
            assert mine.get(f"/v1/volumes/{name}/result").status_code == 404


def test_a_failure_before_the_work_is_a_status_and_leaves_nothing(served):
    served.brain.trouble = Fault(Kind.TOO_LARGE, "the volume is too large", param="volume")
    with http(served) as client:
        response = client.post("/v1/volumes/segment", **WAYS["json"])
    assert (response.status_code, response.json()["error"]["param"]) == (413, "volume")
    assert jobs_of(served) == []


def test_a_failure_under_way_is_the_last_line_and_the_client_s_error(served):
    served.brain.volume_trouble = Fault(Kind.ENGINE_FAILED, "the engine failed on this request")
    with http(served) as client:
        *_, last = lines(client.post("/v1/volumes/segment", **WAYS["json"]))
    assert (last["event"], last["error"]["code"]) == ("failed", "engine_failed")
    for made in (Client(served.url, token="token-1"), GrpcClient(served.address, token="token-1")):
        with made as client, pytest.raises(MedserveError) as caught:
            client.segment_volume(b"V", boxes=[BOX])
        assert caught.value.code == "engine_failed"


def test_an_unexpected_failure_says_nothing_of_itself(served):
    served.brain.volume_trouble = ValueError("/secret/path of Secret^Name")
    with http(served) as client:
        last = lines(client.post("/v1/volumes/segment", **WAYS["json"]))[-1]
    assert last["error"]["code"] == "internal"
    assert "ecret" not in json.dumps(last)


def test_what_progress_raises_cancels_the_job(served):
    served.brain.volume_step_s = 0.1

    def stop(progress):
        raise KeyboardInterrupt

    with Client(served.url, token="token-1") as client, pytest.raises(KeyboardInterrupt):
        client.segment_volume(b"V", boxes=[BOX], progress=stop)
    assert served.brain.cancelled == 1
    assert jobs_of(served) == []


def test_running_jobs_are_bounded(served):
    served.brain.volume_step_s = 0.5
    with http(served) as client:
        opened = [begun(client, keep=True) for _ in range(3)]
        refused = client.post("/v1/volumes/segment", **WAYS["json"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "pool_full")
        assert int(refused.headers["retry-after"]) >= 1
        for response, accepted, _ in opened:
            client.delete(f"/v1/volumes/{accepted['job']}")
            response.close()


def test_remembered_jobs_and_results_are_bounded(served):
    with http(served) as client:
        names = [lines(client.post("/v1/volumes/segment", **WAYS["json"]))[0]["job"] for _ in range(7)]
        kept = {path.name for path in jobs_of(served)}
        assert kept == set(names[-5:])
        assert client.get(f"/v1/volumes/{names[0]}").status_code == 404


def test_a_result_s_time_passes_and_its_bytes_are_bounded(tmp_path):
    with serve(settings(tmp_path, ttl_s=0.05, max_result_bytes=40)) as served, http(served) as client:
        first = lines(client.post("/v1/volumes/segment", **WAYS["json"]))[0]["job"]
        time.sleep(0.2)
        lines(client.post("/v1/volumes/segment", **WAYS["json"]))
        assert client.get(f"/v1/volumes/{first}").status_code == 404
        large = client.post("/v1/volumes/segment", files=[("volume", b"V" * 100)], data={"boxes": "1,2,1,20,30,3"})
        assert lines(large)[-1]["error"]["code"] == "too_large"


def test_a_job_whose_process_is_gone_has_failed(served):
    with http(served) as client:
        job = lines(client.post("/v1/volumes/segment", **WAYS["json"]))[0]["job"]
        folder = served.folder / job
        (folder / "ended").unlink()
        events = (folder / "events").read_text().splitlines()
        (folder / "events").write_text("\n".join(events[:4]) + "\n")
        owner = json.loads((folder / "owner").read_text())
        (folder / "owner").write_text(json.dumps({**owner, "start": 1}))
        *_, last = lines(client.get(f"/v1/volumes/{job}"))
        assert (last["event"], last["error"]["code"]) == ("failed", "engine_unavailable")
        assert client.delete(f"/v1/volumes/{job}").json()["state"] == "deleted"


def test_the_spool_is_its_owner_s_alone(served):
    with http(served) as client:
        job = lines(client.post("/v1/volumes/segment", **WAYS["json"]))[0]["job"]
    for path in (served.folder / job, served.folder / job / "result", served.folder / job / "events"):
        assert os.stat(path).st_mode & 0o077 == 0


BAD = {
    "no prompt": ({"volume": "Vg=="}, "boxes"),
    "no volume": ({"boxes": [BOX]}, "volume"),
    "an empty volume": ({"volume": "", "boxes": [BOX]}, "volume"),
    "absent slices": ({"volume": "Vg==", "boxes": [[1, 2, 1, 20, 30, 6]]}, "boxes"),
    "a negative slice": ({"volume": "Vg==", "boxes": [[1, 2, -1, 20, 30, 3]]}, "boxes[0]"),
    "half a slice": ({"volume": "Vg==", "boxes": [[1, 2, 0.5, 20, 30, 3]]}, "boxes[0]"),
    "slices upside down": ({"volume": "Vg==", "boxes": [[1, 2, 3, 20, 30, 1]]}, "boxes"),
    "a flat box and no slice": ({"volume": "Vg==", "boxes": [[1, 2, 20, 30]]}, "boxes[0]"),
    "five numbers": ({"volume": "Vg==", "boxes": [[1, 2, 3, 20, 30]]}, "boxes[0]"),
    "outside the picture": ({"volume": "Vg==", "boxes": [[1, 2, 1, 65, 30, 3]]}, "boxes"),
    "a number that is none": ({"volume": "Vg==", "boxes": [[1, 2, "x", 20, 30, 3]]}, "boxes[0]"),
    "first without last": ({"volume": "Vg==", "objects": [{"box": [1, 2, 20, 30], "slice": 1, "first": 0}]}, "objects"),
    "an extent said twice": ({"volume": "Vg==", "objects": [{"box": BOX, "first": 0, "last": 5}]}, "objects[0].first"),
    "a mask beside a box": (
        {"volume": "Vg==", "objects": [{"box": [1, 2, 3, 4], "slice": 1, "mask": {"size": [48, 64], "counts": "0"}}]},
        "objects[0].mask",
    ),
    "a mask of nothing": (
        {"volume": "Vg==", "objects": [{"slice": 1, "mask": {"size": [0, 64], "counts": "0"}}]},
        "objects[0].mask.size",
    ),
    "a label of two on a slice": (
        {"volume": "Vg==", "objects": [{"box": BOX, "label": 0}, {"box": BOX, "label": 0}]},
        "objects",
    ),
    "a label of some": ({"volume": "Vg==", "objects": [{"box": BOX, "label": 0}, {"box": BOX}]}, "objects"),
    "a label too many": ({"volume": "Vg==", "objects": [{"box": BOX, "label": 256}]}, "objects[0].label"),
    "an axis of four": ({"volume": "Vg==", "boxes": [BOX], "axis": 3}, "axis"),
    "an unknown output": ({"volume": "Vg==", "boxes": [BOX], "output": "stl"}, "output"),
    "an unknown field": ({"volume": "Vg==", "boxes": [BOX], "spacing": 1}, "spacing"),
    "a model that takes none": ({"volume": "Vg==", "boxes": [BOX], "model": "clip"}, "model"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(served, name):
    body, param = BAD[name]
    with http(served) as client:
        response = client.post("/v1/volumes/segment", json=body)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500
    assert (error["param"], "\n" in error["message"]) == (param, False)
    assert jobs_of(served) == []


def test_a_body_over_the_limit_of_volumes_is_refused(served):
    with http(served) as client:
        fits = client.post("/v1/volumes/segment", files=[("volume", bytes(2_000_000))], data={"boxes": "1,2,1,20,30,3"})
        assert fits.status_code == 200
        large = client.post("/v1/volumes/segment", files=[("volume", bytes(3_000_001))], data={"boxes": "1,2,1,20,30,3"})
    assert large.json()["error"]["code"] == "too_large"


def test_a_series_of_many_files_is_taken(served):
    files = [("volume", b"%d" % n) for n in range(400)]
    with http(served) as client:
        response = client.post("/v1/volumes/segment", files=files, data={"boxes": "1,2,1,20,30,3"})
    assert lines(response)[-1]["event"] == "done"
    assert len(served.brain.seen[0].task.volume.files) == 400


def test_a_client_takes_a_broken_stream_up_again(served, monkeypatch):
    broken = []
    whole = httpx.Response.iter_lines

    def breaking(self):
        for n, line in enumerate(whole(self)):
            if n == 3 and not broken:
                broken.append(line)
                raise httpx.ReadError("the connection was lost")
            yield line

    monkeypatch.setattr(httpx.Response, "iter_lines", breaking)
    told = []
    with Client(served.url, token="token-1") as client:
        found = client.segment_volume(io.BytesIO(b"V").read(), boxes=[BOX], progress=told.append)
    assert broken
    assert found.data == b"label map of V"
    assert [each.done for each in told] == [1, 2, 3, 4, 5, 6]


def test_a_client_asks_again_where_another_node_does_not_know_the_job(served, monkeypatch):
    """Behind one address several nodes may answer: the first two that are asked for the result know nothing of it."""
    asked, find = [], job_spool.Spool.find

    def knowing(self, ident, tenant):
        asked.append(ident)
        if len(asked) <= 2:
            raise job_spool.unknown()
        return find(self, ident, tenant)

    monkeypatch.setattr(job_spool.Spool, "find", knowing)
    monkeypatch.setattr(volumes, "RESUME_S", 0.01)
    with Client(served.url, token="token-1") as client:
        assert client.segment_volume(b"V", boxes=[BOX]).data == b"label map of V"
    assert len(set(asked)) == 1
    assert len(served.brain.seen) == 1


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_a_client_whose_job_is_gone_is_told_to_send_the_volume_again(served, monkeypatch, wire):
    """Its node was replaced in the middle of the stream, and the others do not know the job."""

    def gone(self, ident, tenant):
        raise job_spool.unknown()

    def lost(self, event, feed=volumes.Stream.feed):
        feed(self, event)
        raise MedserveError("unreachable", "no answer", 0)

    monkeypatch.setattr(job_spool.Spool, "find", gone)
    monkeypatch.setattr(volumes.Stream, "feed", lost)
    monkeypatch.setattr(volumes, "RESUME_S", 0.01)
    made = Client(served.url, token="token-1") if wire == "http" else GrpcClient(served.address, token="token-1")
    with made as client, pytest.raises(MedserveError) as caught:
        client.segment_volume(b"V", boxes=[BOX])
    assert (caught.value.code, caught.value.param) == ("not_found", "job")
    assert str(caught.value).endswith("send the volume again")


def test_a_result_that_broke_off_over_grpc_is_fetched_again(served, monkeypatch):
    broken, feed = [], volumes.Stream.feed

    def breaking(self, event):
        feed(self, event)
        if event["event"] == "done" and not broken:
            broken.append(event)
            raise MedserveError("unreachable", "no answer", 0)

    monkeypatch.setattr(volumes.Stream, "feed", breaking)
    with GrpcClient(served.address, token="token-1") as client:
        assert client.segment_volume(b"V", boxes=[BOX]).data == b"label map of V"
    assert broken


def test_nodes_that_share_the_spool_see_whether_another_s_job_lives(tmp_path, monkeypatch):
    spool = job_spool.Spool(settings(tmp_path, max_running=1).volumes)
    job = spool.create("one")
    job.append({"seq": 0, "event": "accepted"})
    monkeypatch.setattr(job_spool, "_node", lambda: "another")
    found = spool.find(job.id, "one")
    assert not found.orphaned
    assert spool.create("one").of_this_node  # its own bound of one job at a time, not the other's
    long_ago = time.time() - 2 * job_spool.LOST_S
    for path in (*(tmp_path / job.id).iterdir(), tmp_path / job.id):
        os.utime(path, (long_ago, long_ago))
    assert found.orphaned
    job.beat()
    assert not found.orphaned


def test_a_job_at_work_says_so(served):
    served.brain.volume_step_s = 0.2
    with http(served) as client:
        response, accepted, _ = begun(client, keep=True)
        wait_for((served.folder / accepted["job"] / "alive").exists)
        response.close()
        client.delete(f"/v1/volumes/{accepted['job']}")
