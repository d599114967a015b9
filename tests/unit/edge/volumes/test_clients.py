"""The clients on a volume: the file, its progress, and what they do where a stream, a job or its node is lost."""

import io

import httpx
import pytest

from serving.client import AsyncClient, AsyncGrpcClient, Client, GrpcClient, MedserveError, volumes
from serving.edge import job_spool
from tests.unit.edge.volumes.asking import BOX, jobs_of, wait_for


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


def test_what_progress_raises_cancels_the_job(served):
    served.brain.volume_step_s = 0.1

    def stop(progress):
        raise KeyboardInterrupt

    with Client(served.url, token="token-1") as client, pytest.raises(KeyboardInterrupt):
        client.segment_volume(b"V", boxes=[BOX], progress=stop)
    assert served.brain.cancelled == 1
    assert jobs_of(served) == []


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
