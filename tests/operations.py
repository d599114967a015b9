"""The procedures of an operator, one after another on a test cluster, under load: what each of them cost its users.

    python tests/operations.py [--nodes 3] [--seconds 20] [--think 0.25] [--out docs/benchmarks] [upgrade canary drain loss]

The load is S1 (sessions: an image, then ten prompts by its handle) and S3 (images against 14 labels), with thought between
the calls. Every mask is compared with that of its prompt's first answer. A call counts as *asked again* where the answer was
404 `send_image_again` and the session sent its image once more, as the interface says; as *closed* where the connection ended
before an answer and the call was sent once more; as *failed* where any other error came back, or twice no answer; as *wrong*
where a mask differs. The model's second version has the same weights under another name and digest (`version2.py`).
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from cluster import Cluster
from version2 import VERSION, beside

from serving.bench import load, wire
from serving.bench.figures import percentile
from serving.bench.machine import describe
from serving.bench.pictures import Picture
from serving.bench.s3 import LABELS, SIDE_PX

CLIP = "synthetic-cxr-clip"
WEIGHTS = (10, 50, 100)
SESSIONS, READERS = 3, 1


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

    def p99_ms(self, kind):
        return 1000 * percentile(self.seconds[kind], 99) if self.seconds.get(kind) else float("nan")


class Users:
    """The load, in this process's event loop. `seen` is exchanged for another at each `begin`."""

    def __init__(self, cluster, think_s):
        self._cluster = cluster
        self._think_s = think_s
        self._done = asyncio.Event()
        self._seeds, self._masks = count(90_000), {}
        self.seen = Seen()
        self.models = Counter()

    def begin(self):
        """A new stretch; gives the one that ends."""
        ended, self.seen = self.seen, Seen()
        return ended

    async def run(self):
        await asyncio.gather(*(self._session(n) for n in range(SESSIONS)), *(self._reader(n) for n in range(READERS)))

    def stop(self):
        self._done.set()

    async def _session(self, number):
        line = self._line()
        pictures = [Picture(90_000 + 10 * number + n) for n in range(4)]
        for turn in count():
            if self._done.is_set():
                break
            await self._one_session(line, pictures[turn % len(pictures)])
        await line.close()

    async def _one_session(self, line, picture):
        handle = await self._encode(line, picture)
        for prompt in picture.prompts:
            if self._done.is_set() or handle is None:
                return
            sample, reply = await self._ask(line, wire.by_handle(handle, prompt))
            if sample.code == "send_image_again":
                self.seen.note("prompt", sample)
                handle = await self._encode(line, picture)
                continue
            self.seen.note("prompt", sample, self._is_wrong(picture, prompt, sample, reply))
            await asyncio.sleep(self._think_s)

    def _is_wrong(self, picture, prompt, sample, reply):
        """Against the first answer of the same model version to the same prompt."""
        if not sample.ok:
            return False
        model = reply.json()["model"]["name"] if isinstance(reply.body, bytes) and reply.body.startswith(b"{") else ""
        self.models[model] += 1
        first = self._masks.setdefault((picture.seed, prompt, model), reply.counts())
        return first != reply.counts()

    async def _encode(self, line, picture):
        sample, reply = await self._ask(line, wire.encode(picture.png))
        self.seen.note("encode", sample)
        return reply.image_id() if sample.ok else None

    async def _reader(self, number):
        line = self._line()
        for seed in count(95_000 + 10_000 * number):
            if self._done.is_set():
                break
            ask = wire.classify(Picture(seed, SIDE_PX).png, LABELS[14], CLIP)
            sample, _ = await self._ask(line, ask)
            self.seen.note("classify", sample)
            await asyncio.sleep(self._think_s)
        await line.close()

    def _line(self):
        return wire.line("http", self._cluster.http_url, self._cluster.grpc_address)

    async def _ask(self, line, ask):
        """One call; once more where its connection was closed before an answer, as a client with `retries` does."""
        sample, reply = await load.ask_once(line, ask, 0.0)
        if sample.status == 0:
            self.seen.counts["closed"] += 1
            sample, reply = await load.ask_once(line, ask, 0.0)
        return sample, reply


async def in_thread(work, *arguments):
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def upgrade(cluster):
    await in_thread(cluster.upgrade)


async def canary(cluster):
    for percent in WEIGHTS:
        await in_thread(cluster.weigh, {"litemedsam": {VERSION: percent}})
        await asyncio.sleep(6)


async def drain(cluster):
    await in_thread(cluster.drain, max(map(int, cluster.nodes)))


async def loss(cluster):
    await in_thread(cluster.kill_node, max(map(int, cluster.nodes)))


PROCEDURES = {"upgrade": upgrade, "canary": canary, "drain": drain, "loss": loss}


async def measure(cluster, names, seconds, think_s, say=print):
    """name -> (before, during): the procedures in order, each after a quiet stretch of `seconds`."""
    users, found = Users(cluster, think_s), {}
    running = asyncio.create_task(users.run())
    await asyncio.sleep(5)  # every picture's masks are known, every connection is open
    for name in names:
        users.begin()
        await asyncio.sleep(seconds)
        before = users.begin()
        started = time.monotonic()
        await PROCEDURES[name](cluster)
        await asyncio.sleep(max(seconds - (time.monotonic() - started), 5))
        found[name] = (before, users.begin(), time.monotonic() - started)
        say(f"{name}: {dict(found[name][1].counts)} {dict(found[name][1].codes)} models {dict(users.models)}")
        if name in ("drain", "loss") and name != names[-1]:
            await in_thread(cluster.add_node)
            await asyncio.sleep(10)
    users.stop()
    await running
    return found


def row(name, before, during, spent):
    """A line of the page."""
    ratios = [during.p99_ms(kind) / before.p99_ms(kind) for kind in ("prompt", "classify")]
    counts = during.counts
    cells = [name, f"{spent:.0f}", counts["requests"], counts["failed"], counts["wrong"], counts["again"], counts["closed"]]
    cells += [f"{before.p99_ms('prompt'):.0f}", f"{during.p99_ms('prompt'):.0f}", *(f"{ratio:.1f}" for ratio in ratios)]
    return "| " + " | ".join(map(str, cells)) + " |", counts["failed"] + counts["wrong"]


def running(nodes, folder):
    """A cluster that serves both versions, with room for two replicas on a node."""
    repository = beside(folder)
    models = f"litemedsam,litemedsam@{VERSION},{CLIP}"
    variables = {"MEDSERVE_REPOSITORY__PATH": str(repository), "MEDSERVE_REPOSITORY__MODELS": models}
    return Cluster(nodes, room=2, MEDSERVE_ROUTER__REPLICAS="2", **variables)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("procedures", nargs="*", default=[*PROCEDURES])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--think", type=float, default=0.25, help="seconds between a user's calls")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(options.nodes, Path(folder)) as cluster:
        found = asyncio.run(measure(cluster, options.procedures, options.seconds, options.think))
    rows = [row(name, *seen) for name, seen in found.items()]
    head = "| procedure | seconds | requests | failed | wrong | asked again | closed | p99, ms | during | ratio | S3's |"
    table = "\n".join([head, "|" + " --- |" * 11, *(text for text, _ in rows)])
    print(table)
    if options.out:
        machine = "\n".join(f"- {name}: {value}" for name, value in describe().items())
        command = f"python tests/operations.py --nodes {options.nodes} --seconds {options.seconds:g} --think {options.think:g}"
        page = f"# Operations\n\n`{command}`, {time.strftime('%F')}\n\n{machine}\n\n{table}\n"
        (options.out / "operations.md").write_text(page)
    raise SystemExit(any(bad for _, bad in rows))


if __name__ == "__main__":
    main()
