"""The clients behind a real HAProxy whose server is away, closes without a word, or does not answer."""

from contextlib import ExitStack

import pytest
from awaited import CLIENTS, Awaited
from proxy import PAGES, Proxy, Recovering, behind, hang_up, refusing, stay_silent

from serving.client import MedserveError
from serving.settings import Settings
from tests.unit.client.answering import CLOSED, answering
from tests.unit.edge.servers import serve

pytestmark = pytest.mark.integration
TIMEOUT_S = 60
HTTP, GRPC = ("http", "http async"), ("grpc", "grpc async")
SERVERS = {
    "away": (refusing, HTTP, 503, {}),
    "closing": (lambda: behind(hang_up), HTTP, 502, {"retries": 1}),
    "silent": (lambda: behind(stay_silent), HTTP, 504, {"more": "    timeout server 20ms\n"}),
    "away, gRPC": (refusing, GRPC, 503, {"http2": True}),
    "closing, gRPC": (lambda: answering(CLOSED), GRPC, 502, {"http2": True, "retries": 1}),
}
"""What is behind the proxy: how it is started, who asks, HAProxy's status for it, and what HAProxy is told of it."""
CASES = [(server, page, kind) for server, (_, kinds, *_) in SERVERS.items() for page in PAGES for kind in kinds]


def opened(kind, address, **said):
    return Awaited(CLIENTS[kind](f"http://{address}" if kind in HTTP else address, timeout_s=TIMEOUT_S, **said))


@pytest.fixture(scope="module")
def fronts(tmp_path_factory):
    """(server, page) -> the address of the proxy in front of it."""
    with ExitStack() as stack:
        proxy, found = Proxy(tmp_path_factory.mktemp("haproxy")), {}
        for server, (start, *_, told) in SERVERS.items():
            address = stack.enter_context(start())
            found |= {(server, page): proxy.front(address, page, **told) for page in PAGES}
        stack.enter_context(proxy)
        yield found


async def unreachable(call):
    """(status, what is said) of the error."""
    with pytest.raises(MedserveError) as caught:
        await call
    assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(("server", "page", "kind"), CASES)
async def test_a_proxy_s_own_answer_is_one_line_and_worth_another_try(fronts, server, page, kind):
    """Where a body is still under way when HAProxy answers and closes, the end of the connection may be all that is seen."""
    address = fronts[server, page]
    client = opened(kind, address)
    answered = (PAGES[page][SERVERS[server][2]], "nobody behind the server's proxy answers now: try again")
    closed = (0, f"no answer from {'http://' if kind in HTTP else ''}{address}: is the server up?")
    assert await unreachable(client.image("a.b")) in ((answered,) if kind in HTTP else (answered, closed))
    assert await unreachable(client.embed(texts=["a"])) in (answered, closed)
    assert await unreachable(client.segment_volume(b"x", boxes=[[0, 0, 0, 1, 1, 1]])) in (answered, closed)
    assert await client.ready() is False
    await client.close()


@pytest.mark.parametrize("kind", HTTP)
async def test_what_a_proxy_lost_is_sent_again_where_that_is_wished(kind, tmp_path):
    """The server's front is there from the third connection on."""
    with serve(Settings()) as front:
        flaky, proxy = Recovering(front.url.removeprefix("http://"), times=2), Proxy(tmp_path)
        with behind(flaky) as address:
            before = proxy.front(address)
            with proxy:
                once, again = opened(kind, before), opened(kind, before, retries=1)
                assert (await unreachable(once.image("a.b")))[0] == 502
                front.brain.handles.add("a.b")
                assert (await again.image("a.b")).image_id == "a.b"
                assert flaky.seen == 3
                for client in (once, again):
                    await client.close()
