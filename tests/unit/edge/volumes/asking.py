"""Volumes as the tests of both fronts send them, and what they look at: streams, and the folders of jobs."""

import json
import time

import httpx

from serving.settings import AuthSettings, LimitSettings, Settings, VolumeSettings

BOX = [1, 2, 1, 20, 30, 3]
WAIT_S = 20
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


def settings(folder, **volumes):
    said = {"max_running": 3, "max_jobs": 5, "spool": folder, **volumes}
    tokens = {"one": "token-1", "two": "token-2"}
    return Settings(
        limits=LimitSettings(max_body_bytes=1_000_000), volumes=VolumeSettings(**said), auth=AuthSettings(tokens=tokens)
    )


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
