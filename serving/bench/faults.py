"""Faults while S1 runs: parts are killed, the arena is filled, clients are slow. No mask is ever wrong; all comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from serving.bench import asking, load, wire
from serving.bench.bench import Bench, Known
from serving.bench.figures import Result, Table, Times, Verdict
from serving.bench.load import Sample
from serving.bench.pictures import several
from serving.bench.server import Server

BUDGET_BYTES = 128 * 1024 * 1024
"""Of Features, so that the arena can be filled in a few seconds."""
FRONTS = ("http", "grpc", "http", "grpc")
CALM_S = 3.0
RECOVERY_S = 40.0
KILLED = {
    "Triton killed": ("bin/tritonserver",),
    "decoder process killed": ("triton_python_backend_stub", "mask_decoder"),
    "encoder process killed": ("triton_python_backend_stub", "image_encoder"),
    "router replica killed": ("ServeReplica:medserve:Ingress",),
    "adaptive replica killed": ("ServeReplica:medserve:adaptive",),
}
"""Fault -> words of the process's command line. What this shape of the server has not is left out."""
SLOW_CLIENTS = 32
FILLING = 60


def environ() -> dict[str, str]:
    """Settings of the server that is hurt."""
    return {"MEDSERVE_FEATURES__BUDGET_BYTES": str(BUDGET_BYTES)}


@dataclass
class Clients:
    """Four that go on whatever happens: mostly by handle, now and then with the image. A lost handle is encoded again."""

    bench: Bench
    samples: list[Sample] = field(default_factory=list)
    done: bool = False

    async def work(self, front: str, known: Known, began: float) -> None:
        """One client."""
        line, handle = self.bench.dial(front)(), known.image_id
        for number in count():
            if self.done:
                break
            place = number % len(known.goldens)
            if number % 7 == 6:
                ask = known.inline(place, kind=front)
            else:
                ask = asking.by_handle(handle, known.picture.prompts[place], kind=front, golden=known.goldens[place])
            try:
                async with asyncio.timeout(30):
                    sample, reply = await load.ask_once(line, ask, began)
                    self.samples.append(sample)
                    if sample.status == 404:
                        _, reply = await load.ask_once(line, asking.encode(known.picture.png), began)
                        handle = reply.image_id() if reply is not None and reply.ok else handle
            except TimeoutError:
                self.samples.append(Sample(front, time.perf_counter() - began, 30.0, 0, {}, code="no answer in 30 s"))
                await line.close()
                line = self.bench.dial(front)()
                continue
            if not sample.ok:
                await asyncio.sleep(0.05)
        await line.close()


def measure(bench: Bench) -> Result:
    """One server with a small budget of Features; the faults one after the other."""
    found = Result("faults", "Faults while sessions run")
    table = Table(
        "Four clients (two HTTP, two gRPC) throughout",
        ("fault", "answers", "wrong masks", "failed calls", "whole again after, s", "click p50 / p95 before, ms", "during, ms"),
    )
    with Server({**os.environ, **environ()}) as server:
        ours = Bench(server, bench.repository, bench.cache, bench.say, bench.seconds, 1, True, home=bench.home)
        ours.known  # noqa: B018  # taken before anything is hurt
        load.run(_all(ours, found, table))
        leftovers = [line for line in server.processes().values() if "<defunct>" in line]
        found.raw["leftovers"] = leftovers
    found.tables.append(table)
    return found


async def _all(bench: Bench, found: Result, table: Table) -> None:
    clients, began = Clients(bench), time.perf_counter()
    tasks = [
        asyncio.create_task(clients.work(front, bench.known[n % len(bench.known)], began)) for n, front in enumerate(FRONTS)
    ]
    faults: dict[str, Callable[[], Awaitable[None]]] = {
        name: partial(_kill, bench, *words) for name, words in KILLED.items() if bench.server.find(*words)
    }
    faults["arena filled"] = partial(_fill, bench)
    faults[f"{SLOW_CLIENTS} slow clients"] = partial(_crawl, bench)
    for name, hurt in faults.items():
        await asyncio.sleep(CALM_S)
        bench.say(f"fault: {name}")
        before = [s for s in clients.samples if s.sent_s > time.perf_counter() - began - CALM_S]
        mark, at = len(clients.samples), time.perf_counter() - began
        await hurt()
        whole = await _whole_again(clients, mark, time.perf_counter() - began)
        after = clients.samples[mark:]
        wrong, failed = sum(not s.right for s in after), [s for s in after if not s.ok]
        calm, during = (Times.of(s.seconds for s in some if s.ok) for some in (before, after))
        codes = ", ".join(f"{n} {code}" for code, n in Counter(s.code for s in failed).most_common(4))
        table.add(
            name, str(len(after)), str(wrong), f"{len(failed)} ({codes})" if failed else "0", f"{whole - at:.1f}",
             f"{calm.p50_ms:.0f} / {calm.p95_ms:.0f}", f"{during.p50_ms:.0f} / {during.p95_ms:.0f}",
        )  # fmt: skip
        found.verdicts.append(Verdict(f"{name}: wrong masks", wrong, 0, "<=", "", 0, f"of {len(after)}"))
        found.verdicts.append(Verdict(f"{name}: every client is answered again", whole - at, RECOVERY_S, "<=", "s", 1))
    clients.done = True
    await asyncio.gather(*tasks)


async def _whole_again(clients: Clients, mark: int, hurt_s: float) -> float:
    """When each client has had ten good answers in a row after the fault; NaN where that does not come."""
    until = time.perf_counter() + RECOVERY_S
    last_bad = hurt_s
    while time.perf_counter() < until:
        await asyncio.sleep(0.1)
        after = clients.samples[mark:]
        last_bad = max([hurt_s, *(s.sent_s + s.seconds for s in after if not s.ok)])
        good = Counter(s.kind for s in after if s.ok and s.sent_s > last_bad)
        if all(good[front] >= 10 * FRONTS.count(front) for front in set(FRONTS)):
            return last_bad
    return float("nan")


async def _kill(bench: Bench, *words: str) -> None:
    """The first of the server's processes that has the words; one that a fault before has taken is waited for."""
    for _ in range(100):
        pids = bench.server.find(*words)
        if pids:
            os.kill(pids[0], signal.SIGKILL)
            return
        await asyncio.sleep(0.1)
    raise LookupError(f"no process of the server has {' and '.join(words)}")


async def _fill(bench: Bench) -> None:
    """More new images than the budget holds, eight at a time."""
    waiting = iter(several(FILLING, 5000))
    began = time.perf_counter()

    async def one() -> None:
        line = bench.dial()()
        for picture in waiting:
            await load.ask_once(line, asking.encode(picture.png), began)
        await line.close()

    await asyncio.gather(*(one() for _ in range(8)))


async def _crawl(bench: Bench) -> None:
    """Clients that send a body a byte at a time, and hang up in the middle of it."""
    url = wire.HttpConnection(bench.server.http_url)
    ask = asking.encode(several(1, 6000)[0].png)

    async def one() -> None:
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(ask.head)
        for place in range(50):
            writer.write(ask.body[place : place + 1])
            await asyncio.sleep(0.1)
        writer.close()

    await asyncio.gather(*(one() for _ in range(SLOW_CLIENTS)), return_exceptions=True)
