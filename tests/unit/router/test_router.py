import asyncio
from collections.abc import Callable

import pytest

from serving.domain.answer import Answer, Embeddings, ModelInfo
from serving.domain.request import Deadline, Embed, Request
from serving.errors import Fault, Kind
from serving.manifest import Manifest
from serving.router.admission import Gate, Permit
from serving.router.brain import ServedModel
from serving.router.router import Router

MANIFEST = Manifest(model="clip", family="clip", pool="contrastive", digest="", source="", licence="", engines={})
ANSWER = Answer(Embeddings(None), ModelInfo("clip", "clip", "contrastive", ""), {})  # type: ignore[arg-type]


class Client:
    def __init__(self, ready: Callable[[], str] = lambda: "ready") -> None:
        self.seen: list[tuple[Request, str, Permit]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.ready = ready

    async def answer(self, request: Request, affinity: str, permit: Permit) -> Answer:
        self.seen.append((request, affinity, permit))
        await self.go.wait()
        return ANSWER

    async def readiness(self) -> str:
        return self.ready()


def request(seconds: float = 5) -> Request:
    return Request(Embed(texts=("a",)), Deadline.after(seconds), "id")


def router(client: Client, parallel: int = 1, waiting: int = 0) -> Router:
    gate = Gate("contrastive", parallel, waiting)
    return Router({"contrastive": client}, {"contrastive": gate}, (ServedModel(MANIFEST, ("text",), {}),))


async def test_the_chosen_model_and_a_permit_go_along():
    client = Client()
    assert await router(client).answer(request()) is ANSWER
    sent, _, permit = client.seen[0]
    assert (sent.model, permit.pool) == ("clip", "contrastive")


async def test_a_full_pool_refuses_at_once_and_says_when():
    client = Client()
    client.go.clear()
    brain = router(client, parallel=1, waiting=1)
    inside = [asyncio.create_task(brain.answer(request())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Fault) as caught:
        await brain.answer(request())
    assert caught.value.kind is Kind.POOL_FULL
    assert caught.value.retry_after_s > 0
    client.go.set()
    await asyncio.gather(*inside)
    assert await brain.answer(request()) is ANSWER


async def test_a_cancelled_request_gives_its_place_back():
    client = Client()
    client.go.clear()
    brain = router(client)
    task = asyncio.create_task(brain.answer(request()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    client.go.set()
    assert await brain.answer(request()) is ANSWER


async def test_dead_work_does_not_reach_the_pool():
    client = Client()
    with pytest.raises(Fault) as caught:
        await router(client).answer(request(-1))
    assert caught.value.kind is Kind.DEADLINE
    assert not client.seen


async def test_readiness_tells_which_pool_is_away():
    def away() -> str:
        raise Fault(Kind.ENGINE_UNAVAILABLE, "no replica")

    assert (await router(Client()).readiness()).ready
    state = await router(Client(away)).readiness()
    assert (state.ready, dict(state.parts)) == (False, {"contrastive": "no replica"})


def test_retry_after_grows_with_the_queue():
    gate = Gate("p", parallel=2, waiting=8)
    gate.served(1.0)
    gate.inside = 10
    assert gate.retry_after_s() == 0.5
    gate.inside = 15
    assert gate.retry_after_s() == 3.0
