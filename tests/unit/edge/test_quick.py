"""The busy routes before the framework: what is answered there, and what is left to it."""

import httpx
import pytest
from starlette.responses import PlainTextResponse

from serving.edge.http import build_app
from serving.edge.http_calls import HttpCalls
from serving.edge.quick import Quick
from serving.settings import Settings
from tests.unit.edge.fakes import FakeBrain, Notes


async def framework(scope, receive, send):
    await PlainTextResponse("framework")(scope, receive, send)


async def quick(request):
    return PlainTextResponse("quick")


async def breaks(request):
    raise RuntimeError("/secret")


async def failed(request, exc):
    return PlainTextResponse(type(exc).__name__, 500)


async def ask(method, path, root_path=""):
    app = Quick(framework, {"/a": quick, "/broken": breaks}, failed)
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.request(method, path)
        return response.status_code, response.text


@pytest.mark.parametrize(
    ("method", "path", "root_path", "answer"),
    [("POST", "/a", "", "quick"), ("POST", "/a?b=c", "", "quick"), ("GET", "/a", "", "framework"),
     ("POST", "/a/", "", "framework"), ("POST", "/A", "", "framework"), ("POST", "/a", "/below", "framework")],
)  # fmt: skip
async def test_a_post_to_the_very_path_is_answered_at_once(method, path, root_path, answer):
    assert await ask(method, path, root_path) == (200, answer)


async def test_a_handler_that_fails_is_answered_for():
    assert await ask("POST", "/broken") == (500, "RuntimeError")


async def test_a_failure_outside_a_call_has_the_error_body_and_no_trace(monkeypatch, caplog):
    async def run(self, request, route, work):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(HttpCalls, "run", run)
    app = build_app(FakeBrain(), Settings(), observer=Notes(), metrics=lambda: b"")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.post("/v1/segment", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert len(caplog.records) == 1


async def test_the_framework_answers_the_same_where_it_is_mounted():
    brain = FakeBrain()
    app = build_app(brain, Settings(), observer=Notes(), metrics=lambda: b"")
    body = {"image": "aGVsbG8=", "boxes": [[1, 2, 9, 9]]}
    said = []
    for root_path in ("", "/below"):
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post(f"{root_path}/v1/segment", json=body)
        said.append((response.status_code, response.json()["masks"], response.headers["x-features"]))
    assert said[0] == said[1]
    assert said[0][0] == 200
