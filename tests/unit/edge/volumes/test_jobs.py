"""A volume's job: cancelled, taken up again, found by other replicas and nodes, its tenant's alone, bounded, and its end."""

import itertools
import json
import os
import time
from contextlib import closing

import grpc
import pytest

from serving.client import Client, GrpcClient, MedserveError
from serving.edge import job_spool
from serving.edge.proto import inference_pb2 as pb
from serving.edge.proto.inference_pb2_grpc import InferenceStub
from serving.errors import Fault, Kind
from tests.unit.edge.servers import serve
from tests.unit.edge.volumes.asking import BOX, WAYS, begun, http, jobs_of, lines, settings, wait_for


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
