"""Users of a test cluster: sessions (S1: an image, then ten prompts by handle) and readers (S3: an image, 14 labels).

Closed, each of a fixed number asks again when it has its answer; open, they arrive at a rate, whatever has come back by then.
Each session's image is new to the server, and its masks are known: it is one of a few pictures, whose file says another number.
"""

import asyncio
import struct
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from serving.bench import asking, load, wire
from serving.bench.figures import percentile
from serving.bench.pictures import PROMPTS, Picture
from serving.bench.s3 import LABELS, SIDE_PX

CLIP = "synthetic-cxr-clip"
PICTURES, RADIOGRAPHS = 12, 40
IEND_BYTES = 12
RESENT = 3
"""How often a session sends its image again for one prompt."""


@dataclass
class Seen:
    """What users saw in one stretch of time."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    codes: Counter = field(default_factory=Counter)

    def note(self, kind, sample, wrong=False):
        self.counts["requests"] += 1
        if sample.ok:
            self.seconds.setdefault(kind, []).append(sample.seconds)
            self.counts["wrong"] += wrong
        elif sample.code == "send_image_again":
            self.counts["again"] += 1
        else:
            self.counts["failed"] += 1
            self.codes[f"{kind} {sample.status} {sample.code}"] += 1

    def __add__(self, other):
        """Both stretches as one."""
        kinds = {**self.seconds, **other.seconds}
        seconds = {kind: [*self.seconds.get(kind, ()), *other.seconds.get(kind, ())] for kind in kinds}
        return Seen(seconds, self.counts + other.counts, self.codes + other.codes)

    def p99_ms(self, kind):
        return 1000 * percentile(self.seconds[kind], 99) if self.seconds.get(kind) else float("nan")


def numbered(png, number):
    """The same picture in another file: a PNG with a text chunk more."""
    body = b"tEXt" + b"n\0%d" % number
    return png[:-IEND_BYTES] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[-IEND_BYTES:]


class Users:
    """The load, in this process's event loop. `seen` is exchanged for another at each `begin`.

    `think_s`: between the calls of a user. `timeline`: is told of each call.
    """

    def __init__(self, cluster, think_s, timeline=None):
        self._cluster = cluster
        self._think_s = think_s
        self._timeline = timeline
        self._done = asyncio.Event()
        self._numbers, self._masks, self._idle = count(time.time_ns()), {}, []
        self._pictures = [Picture(90_000 + n) for n in range(PICTURES)]
        self._radiographs = [Picture(95_000 + n, SIDE_PX).png for n in range(RADIOGRAPHS)]
        self.seen = Seen()
        self.models = Counter()

    def begin(self):
        """A new stretch; gives the one that ends."""
        ended, self.seen = self.seen, Seen()
        return ended

    def stop(self):
        self._done.set()

    async def closed(self, sessions, readers):
        """So many of each, until `stop`."""
        await asyncio.gather(
            *(self._again(self._session) for _ in range(sessions)), *(self._again(self._read) for _ in range(readers))
        )

    async def saturate(self, seconds, sessions=4, readers=1):
        """(sessions, readings) a second of closed loops without thought: what the cluster can do of both together."""
        self._done.clear()
        think_s, self._think_s = self._think_s, 0.0
        running = asyncio.create_task(self.closed(sessions, readers))
        await asyncio.sleep(6)
        self.begin()
        await asyncio.sleep(seconds)
        seen = self.begin()
        self._done.set()
        await running
        self._done.clear()
        self._think_s = think_s
        return len(seen.seconds.get("prompt", ())) / PROMPTS / seconds, len(seen.seconds.get("classify", ())) / seconds

    async def opened(self, sessions, readings):
        """Arrivals of so many a second, until `stop`; `_arrive` says how."""
        await asyncio.gather(self._arrive(self._session, sessions, 1), self._arrive(self._read, readings, 2))

    async def _arrive(self, user, rate, seed):
        """One user in each interval of 1/rate, at a random moment of it.

        With Poisson's clumps, stretches of half a minute, some six sessions, differ threefold in their load, and in their p99.
        """
        rng, running, begin = np.random.default_rng(seed), set(), time.perf_counter()
        for interval in count():
            due = begin + (interval + rng.uniform()) / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            if self._done.is_set():
                break
            task = asyncio.create_task(self._with_line(user, due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _with_line(self, user, due):
        line = self._idle.pop() if self._idle else self._line()
        await user(line, due)
        self._idle.append(line)

    async def _again(self, user):
        line = self._line()
        while not self._done.is_set():
            await user(line, time.perf_counter())
            await asyncio.sleep(self._think_s)
        await line.close()

    async def _session(self, line, due):
        number = next(self._numbers)
        picture = self._pictures[number % PICTURES]
        handle = await self._encode(line, picture, number, due)
        for prompt in picture.prompts:
            for _ in range(RESENT):
                if self._done.is_set() or handle is None:
                    return
                sample, reply = await self._ask(line, asking.by_handle(handle, prompt))
                if sample.code != "send_image_again":
                    break
                self._note("prompt", sample)
                handle = await self._encode(line, picture, number)
            self._note("prompt", sample, self._is_wrong(picture, prompt, sample, reply))
            await asyncio.sleep(self._think_s)

    def _is_wrong(self, picture, prompt, sample, reply):
        """Against the first answer of the same model version to the same prompt."""
        if not sample.ok:
            return False
        model = reply.json()["model"]["name"]
        self.models[model] += 1
        first = self._masks.setdefault((picture.seed, prompt, model), reply.counts())
        return first != reply.counts()

    async def _encode(self, line, picture, number, due=None):
        sample, reply = await self._ask(line, asking.encode(numbered(picture.png, number)), due)
        self._note("encode", sample)
        return reply.image_id() if sample.ok else None

    async def _read(self, line, due):
        number = next(self._numbers)
        ask = asking.classify(numbered(self._radiographs[number % RADIOGRAPHS], number), LABELS[14], CLIP)
        self._note("classify", (await self._ask(line, ask, due))[0])

    def _note(self, kind, sample, wrong=False):
        self.seen.note(kind, sample, wrong)
        if self._timeline is not None:
            self._timeline.request(kind, sample)

    def _line(self):
        return wire.line("http", self._cluster.http_url, self._cluster.grpc_address)

    async def _ask(self, line, ask, due=None):
        """One call; once more where its connection was closed before an answer, and where it was refused, as `retries` does.

        `due`: when its user came. All that this user waited is the call's time: the load's own lateness, the pause after a
        refusal, the second call.
        """
        began = time.perf_counter()
        sample, reply = await load.ask_once(line, ask, 0.0)
        if sample.status == 0:
            self.seen.counts["closed"] += 1
            if self._timeline is not None:
                self._timeline.mark(f"closed: a {ask.kind} sent {1000 * sample.seconds:.1f} ms ago", begins=False)
            sample, reply = await load.ask_once(line, ask, 0.0)
        if sample.code == "pool_full":
            self.seen.counts["refused"] += 1
            await asyncio.sleep(float(reply.header(b"retry-after") or 1))
            sample, reply = await load.ask_once(line, ask, 0.0)
        waited = time.perf_counter() - (began if due is None else min(due, began))
        return replace(sample, seconds=max(waited, sample.seconds)), reply
