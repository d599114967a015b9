"""A peer is started, its masks are compared with the product's, and both are measured in turn."""

import time
from itertools import cycle

import numpy as np
from environments import running, say
from peer import OURS

from serving.bench import asking, load, wire
from serving.bench.plain_triton import PlainTriton
from serving.bench.server import cpu_seconds
from serving.client import decode

SATURATED = 8


def streams(asks, workers):
    """An endless stream for each worker, every one starting elsewhere."""
    step = max(len(asks) // workers, 1)
    return [cycle(asks[n * step % len(asks) :] + asks[: n * step % len(asks)]) for n in range(workers)]


def measure_http(dial, asks, firsts, seconds):
    """K = 1, K = 8 and first masks over HTTP."""
    load.run(load.closed(dial, streams(asks, 2), 0.5))
    one = load.run(load.closed(dial, streams(asks, 1), seconds))
    many = load.run(load.closed(dial, streams(asks, SATURATED), seconds))
    first = load.run(load.closed(dial, [iter(firsts)], 3600))
    failed = len(one.failed) + len(many.failed) + len(first.failed)
    return one.latencies(), many.rate(), first.latencies(), failed


def one_peer(peer, bench, cache, repository, folder, figures):
    """Start, check the masks, then in turn with the product."""
    with running(peer, cache, repository, folder) as url:
        dial = lambda: wire.HttpLine(url)  # noqa: E731
        asks = learn(peer, dial, bench, figures)
        for turn in range(bench.repeats):
            say(f"{peer.name}, repeat {turn + 1} of {bench.repeats}")
            pictures = bench.fresh(max(int(bench.seconds / 0.8), 3))
            idle = cpu_seconds(list(bench.server.processes()))
            start = time.perf_counter()
            firsts = [peer.first(p.png, p.prompts[0]) for p in pictures]
            figures.keep(peer.name, *measure_http(dial, asks, firsts, bench.seconds))
            spent = cpu_seconds(list(bench.server.processes())) - idle
            figures.idle.append(spent / (time.perf_counter() - start))
            ours(bench, figures, peer.name)


def ours(bench, figures, beside):
    """The product, in turn with a peer."""
    asks = [ask for known in bench.known for ask in known.asks()]
    firsts = [asking.inline(p.png, p.prompts[0]) for p in bench.fresh(max(int(bench.seconds / 0.8), 3))]
    figures.keep(OURS, *measure_http(bench.dial(), asks, firsts, bench.seconds))
    figures.paired.setdefault(beside, []).append(figures.rate[OURS][-1] / figures.rate[beside][-1])


def learn(peer, dial, bench, figures):
    """Encode the known pictures, ask every prompt once, and compare the masks with the product's."""

    several = bench.known

    async def work():
        line, asks, worst = dial(), [], 1.0
        for known in several:
            image = None
            if peer.encode is not None:
                reply = await line.call(peer.encode(known.picture.png))
                if not reply.ok:
                    raise RuntimeError(f"{peer.name} does not encode: {reply.status} {reply.body[:300]}")
                image = peer.tidy(reply.json())["image_id"]
            # A peer that encodes every time is asked a part of the prompts: the rest would tell no more.
            for place, prompt in enumerate(known.picture.prompts[: 10 if peer.encode else 2]):
                ask = peer.prompt(known.picture, image, prompt)
                reply = await line.call(ask)
                if not reply.ok:
                    raise RuntimeError(f"{peer.name} does not answer: {reply.status} {reply.body[:300]}")
                counts = peer.tidy(reply.json())["counts"].encode()
                worst = min(worst, overlap(counts, known.goldens[place], known.picture.side_px))
                asks.append(ask)
        await line.close()
        return asks, worst

    asks, figures.agreement[peer.name] = load.run(work())
    return asks


def overlap(one, other, side):
    """IoU of two masks in run lengths."""
    a, b = decode.rle(one, side, side), decode.rle(other, side, side)
    union = int(np.logical_or(a, b).sum())
    return int(np.logical_and(a, b).sum()) / union if union else 1.0


def tritons(bench, repository, figures, names):
    """Plain Triton, both ways, in turn with the product."""
    import plain_triton

    pictures = [known.picture for known in bench.known]
    with PlainTriton(repository) as triton:
        for name in names:
            way = name.removeprefix("triton-")
            checked = plain_triton.User(triton.address, way, "c_")
            shown = checked.show(pictures[0].png)
            pairs = zip(pictures[0].prompts, bench.known[0].goldens, strict=True)
            figures.agreement[name] = min(overlap(checked.ask(shown, p), golden, pictures[0].side_px) for p, golden in pairs)
            checked.close()
            for turn in range(bench.repeats):
                say(f"{name}, repeat {turn + 1} of {bench.repeats}")
                one, _ = plain_triton.closed(triton.address, way, pictures, 1, bench.seconds)
                many, took = plain_triton.closed(triton.address, way, pictures, SATURATED, bench.seconds)
                firsts = plain_triton.firsts(triton.address, way, bench.fresh(max(int(bench.seconds / 0.8), 3)))
                figures.keep(name, one, len(many) / took, firsts, 0)
                ours(bench, figures, name)
