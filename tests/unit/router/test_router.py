import asyncio
from collections.abc import Callable

import pytest

from serving.domain.answer import Answer, Embeddings, ModelInfo
from serving.domain.request import Deadline, Embed, Request
from serving.errors import Fault, Kind
from serving.manifest import Manifest
from serving.router.admission import Limits, Permit
from serving.router.brain import ServedModel
from serving.router.gate import Gate
from serving.router.router import Router

MANIFEST = Manifest(model="clip", family="clip", pool="contrastive", digest="", source="", licence="", engines={})
ANSWER = Answer(Embeddings(None), ModelInfo("clip", "clip", "contrastive", ""), {"encode": 0.5})  # type: ignore[arg-type]


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


class Observer:
    def __init__(self) -> None:
        self.sheds: list[tuple[str, str]] = []
        self.deadlines: list[str] = []
        self.waits: list[tuple[str, str, float]] = []

    def observe_wait(self, pool: str, priority: str, seconds: float) -> None:
        self.waits.append((pool, priority, seconds))

    def observe_shed(self, pool: str, reason: str) -> None:
        self.sheds.append((pool, reason))

    def observe_deadline(self, stage: str) -> None:
        self.deadlines.append(stage)


def request(seconds: float = 5) -> Request:
    return Request(Embed(texts=("a",)), Deadline.after(seconds), "id")


def router(client: Client, places: int = 1, observer: Observer | None = None) -> Router:
    gate = Gate("contrastive", Limits(1, places, places, max_wait_s=0.05, max_bulk_wait_s=2.0))
    return Router({"contrastive": client}, {"contrastive": gate}, (ServedModel(MANIFEST, ("text",), {}),), observer)


async def test_the_chosen_model_and_a_permit_go_along():
    client = Client()
    assert await router(client).answer(request()) is ANSWER
    sent, _, permit = client.seen[0]
    assert (sent.model, permit.pool, permit.work.model) == ("clip", "contrastive", "clip")


async def test_a_full_pool_refuses_at_once_and_says_when():
    client = Client()
    client.go.clear()
    observer = Observer()
    brain = router(client, places=2, observer=observer)
    inside = [asyncio.create_task(brain.answer(request())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Fault) as caught:
        await brain.answer(request())
    assert caught.value.kind is Kind.POOL_FULL
    assert caught.value.retry_after_s > 0
    assert observer.sheds == [("contrastive", "pool_full")]
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


async def test_what_an_answer_took_is_what_the_next_is_expected_to_take():
    client, observer = Client(), Observer()
    brain = router(client, places=9, observer=observer)

    async def slowly() -> None:
        await asyncio.sleep(0.2)
        client.go.set()

    client.go.clear()
    await asyncio.gather(brain.answer(request()), slowly())
    client.go.clear()
    inside = [asyncio.create_task(brain.answer(request())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Fault) as caught:
        await brain.answer(request())
    assert caught.value.kind is Kind.POOL_FULL
    assert 0.05 < caught.value.retry_after_s < 0.2
    assert observer.sheds == [("contrastive", "wait")]
    assert observer.waits[-1] == ("contrastive", "interactive", pytest.approx(0.4, rel=0.2))
    client.go.set()
    await asyncio.gather(*inside)


async def test_a_deadline_shorter_than_the_work_is_a_missed_one_and_no_refusal():
    client, observer = Client(), Observer()
    brain = router(client, places=9, observer=observer)

    async def slowly() -> None:
        await asyncio.sleep(0.1)
        client.go.set()

    client.go.clear()
    await asyncio.gather(brain.answer(request()), slowly())
    client.go.clear()
    inside = asyncio.create_task(brain.answer(request(60)))
    await asyncio.sleep(0)
    with pytest.raises(Fault) as caught:
        await brain.answer(request(0.05))
    assert (caught.value.kind, caught.value.retry_after_s) == (Kind.DEADLINE, None)
    assert (observer.deadlines, observer.sheds, len(client.seen)) == (["router"], [], 2)
    client.go.set()
    await inside


async def test_a_pool_that_refuses_is_counted_too():
    class Full(Client):
        async def answer(self, request: Request, affinity: str, permit: Permit) -> Answer:
            raise Fault(Kind.POOL_FULL, "full", retry_after_s=1.0)

    observer = Observer()
    with pytest.raises(Fault):
        await router(Full(), observer=observer).answer(request())
    assert observer.sheds == [("contrastive", "pool_full")]
