"""A volume over the running server: both fronts, real engines, geometry, a series, cancelling, taking up again."""

import gzip
import io
import itertools
import json
import zipfile

import httpx
import nibabel
import numpy as np
import pytest
from brain1 import dice
from running import wait_until
from series import series_of

from serving.client import Client, GrpcClient, MedserveError

pytestmark = pytest.mark.integration

SHAPE = (96, 80, 12)
AFFINE = np.array([[0, -1.5, 0, 11], [1.5, 0, 0, -7], [0, 0, 4.0, 40], [0, 0, 0, 1]])
BOX = [22, 18, 3, 62, 58, 8]


def scan():
    """(values, truth) [i, j, k]: a bright ball that moves along the slices, on noise."""
    x, y, z = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    truth = (np.hypot(x - 38 - z / 2, y - 36) < 14) & (z >= 3) & (z <= 8)
    noise = np.random.default_rng(0).normal(0, 20, SHAPE)
    return (300 + 400 * truth + noise).astype(np.int16), truth


def nifti(values):
    return gzip.compress(nibabel.Nifti1Image(values, AFFINE).to_bytes(), 1)


def labels(found):
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(found.data))
    return image, np.asarray(image.dataobj)


def test_a_volume_is_segmented_in_its_own_geometry_over_both_fronts(server):
    values, truth = scan()
    found, told = {}, []
    with Client(server.http_url) as http, GrpcClient(server.grpc_address) as grpc:
        for name, client in (("http", http), ("grpc", grpc)):
            found[name] = client.segment_volume(nifti(values), boxes=[BOX, [30, 24, 4, 56, 50, 7]], progress=told.append)
    image, first = labels(found["http"])
    assert np.allclose(image.affine, AFFINE, atol=1e-5)
    assert first.shape == SHAPE
    assert np.array_equal(first, labels(found["grpc"])[1])
    assert dice(first > 0, truth) > 0.8
    assert set(np.unique(first)) == {0, 1, 2}
    assert [(each.first, each.last) for each in found["http"].objects] == [(3, 8), (4, 7)]
    assert sorted(each.slice for each in told[: len(told) // 2]) == sorted(each.slice for each in told[len(told) // 2 :])
    assert {each.slice for each in told} == set(range(3, 9))
    assert found["http"].stages_ms["encode"] > 0


def test_a_series_is_the_nifti_it_was_made_of(server):
    values, _ = scan()
    window = {"center": 500, "width": 800}
    files = series_of(values, step=(0, 0, 4.0), spacing=(1.5, 1.5), slope=1, intercept=0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for n, data in reversed(list(enumerate(files))):
            archive.writestr(f"{n}.dcm", data)
    with Client(server.http_url) as client:
        of_series = client.segment_volume(packed.getvalue(), boxes=[[22, 18, 4, 62, 58, 6]], window=window, output="packed")
        of_nifti = client.segment_volume(nifti(values), boxes=[[22, 18, 4, 62, 58, 6]], window=window, output="packed")
        with pytest.raises(MedserveError) as caught:
            client.segment_volume(files[:5] + files[7:], boxes=[BOX])
    assert of_series.frame.spacing_mm == (1.5, 1.5, 4.0)
    assert of_series.masks[0].shape == (12, 80, 96)
    assert of_series.masks[0].any()
    assert np.array_equal(of_series.masks[0], of_nifti.masks[0])
    assert (caught.value.code, caught.value.param) == ("invalid", "volume")
    assert "slices are missing: 2 between 4 and 5" in caught.value.message


def begin(server, **said):
    files = [("volume", nifti(scan()[0])), ("request", (None, json.dumps({"boxes": [[22, 18, 2, 62, 58, 7]], **said})))]
    return httpx.stream("POST", f"{server.http_url}/v1/volumes/segment", files=files, timeout=60)


def last_event(server, job):
    body = httpx.get(f"{server.http_url}/v1/volumes/{job}", timeout=60).text
    return json.loads(body.splitlines()[-1])["event"]


def test_a_client_that_leaves_cancels_and_one_that_keeps_does_not(server):
    with begin(server) as response:
        job = json.loads(next(response.iter_lines()))["job"]
    assert last_event(server, job) == "cancelled"
    with begin(server, keep=True) as response:
        *_, seen = (json.loads(line) for line in itertools.islice(response.iter_lines(), 2))
        job = response.headers["location"].rsplit("/", 1)[1]
    # Each call reaches either of the router's replicas: the job is found from both.
    for _ in range(4):
        again = httpx.get(f"{server.http_url}/v1/volumes/{job}", params={"after": seen["seq"]}, timeout=60)
        events = [json.loads(line) for line in again.text.splitlines()]
        assert events[-1]["event"] == "done"
        assert min(each["seq"] for each in events) == seen["seq"] + 1
        assert httpx.get(f"{server.http_url}{events[-1]['result']}").status_code == 200
    assert httpx.delete(f"{server.http_url}/v1/volumes/{job}").json()["state"] == "deleted"


def test_a_click_is_answered_while_a_volume_is_worked_on(server):
    image = scan()[0][:, :, 5].astype(np.uint8)
    with begin(server, keep=True) as response, Client(server.http_url) as client:
        lines = response.iter_lines()
        job = json.loads(next(lines))["job"]
        assert client.segment(image, boxes=[(20, 20, 60, 60)]).masks
        *_, last = lines
    assert json.loads(last)["event"] == "done"
    httpx.delete(f"{server.http_url}/v1/volumes/{job}")


def test_the_slices_and_jobs_are_counted(server):
    def counts():
        lines = httpx.get(f"{server.http_url}/metrics").text.splitlines()
        said = dict(line.rsplit(" ", 1) for line in lines if line.startswith("medserve_volume"))
        slices = sum(float(value) for name, value in said.items() if name.startswith("medserve_volume_slices_total"))
        done = float(said['medserve_volume_jobs_total{outcome="done"}'])
        return slices, done, float(said["medserve_volume_jobs_active"])

    slices, done, _ = counts()
    with Client(server.http_url) as client:
        client.segment_volume(nifti(scan()[0]), boxes=[[22, 18, 4, 62, 58, 6]])
    assert counts()[:2] == (slices + 3, done + 1)
    wait_until(lambda: counts()[2] == 0, 20)
