"""The procedures of an operator, one after another on a test cluster, under load: what each of them cost its users.

    python tests/operations.py [--nodes 3] [--seconds 20] [--part 0.6] [--limit CORES] [--out docs/benchmarks]
                               [--timeline FILE] [upgrade canary drain loss]

A procedure that is named several times is done so often, and its calls are counted together in a line more: p99 of one time
is its two or three slowest calls. First the cluster is saturated for a moment by closed loops of S1 (sessions: an image, then
ten prompts by its handle) and S3 (images against 14 labels); then users arrive at a part of those rates, with thought between
the calls of a session. Every mask is compared with that of its prompt's first answer. A call counts as *asked again* where
the answer was 404 `send_image_again` and the session sent its image once more, as the interface says; as *closed* where the
connection ended before an answer and the call was sent once more; as *refused* where the pool was full and the call was sent
once more after the time that the answer named, which is part of what it took; as *failed* where any other error came back, or
twice no answer; as *wrong* where a mask differs. The model's second version has the same weights under another name and
digest (`version2.py`).
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from cluster import Cluster
from timeline import Timeline
from users import CLIP, Seen, Users
from version2 import VERSION, beside

from serving.bench.machine import describe

WEIGHTS = (10, 50, 100)


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


async def measure(cluster, names, seconds, users, say=print, mark=lambda what: None):
    """[(name, before, during, seconds)]: the procedures in order, each after a quiet stretch of `seconds`."""
    found = []
    for number, name in enumerate(names, 1):
        mark(f"before {name}")
        users.begin()
        await asyncio.sleep(seconds)
        before = users.begin()
        mark(f"{name} begins")
        started = time.monotonic()
        await PROCEDURES[name](cluster)
        mark(f"{name} is done")
        await asyncio.sleep(max(seconds - (time.monotonic() - started), 5))
        during = users.begin()
        found.append((name, before, during, time.monotonic() - started))
        say(f"{row(*found[-1])[0]} {dict(during.codes)} models {dict(users.models)}")
        if name in ("drain", "loss") and number < len(names):
            await in_thread(cluster.add_node)
            await asyncio.sleep(10)
    return found


async def in_closed_loops(cluster, names, seconds, think_s, sessions=3, readers=1):
    """`measure` with so many users, however fast the machine is."""
    users = Users(cluster, think_s)
    running = asyncio.create_task(users.closed(sessions, readers))
    await asyncio.sleep(5)
    found = await measure(cluster, names, seconds, users)
    users.stop()
    await running
    return found


async def at_part_of_capacity(cluster, names, options, timeline):
    """`measure` with arrivals at a part of what the cluster can do, and a line that says so."""
    if options.limit:
        await in_thread(cluster.limit, options.limit)
    users = Users(cluster, options.think, timeline)
    sessions, readings = await users.saturate(options.saturate)
    wanted = options.part * sessions, options.part * readings
    what = f"{10 * sessions:.0f} prompts and {readings:.0f} readings a second together"
    load = f"capacity: {what}; load: {options.part:.0%} of it"
    print(load, flush=True)
    running = asyncio.create_task(users.opened(*wanted))
    await asyncio.sleep(3)
    found = await measure(cluster, names, options.seconds, users, mark=timeline.mark if timeline else lambda what: None)
    users.stop()
    await running
    return found, load


def together(found):
    """What was seen, and after it one line more of each procedure that was done several times: its calls taken together."""
    for name in dict.fromkeys(each[0] for each in found):
        times = [each for each in found if each[0] == name]
        yield from times
        if len(times) > 1:
            before, during = (sum((each[at] for each in times), Seen()) for at in (1, 2))
            yield f"{name}, all {len(times)}", before, during, sum(each[3] for each in times)


def row(name, before, during, spent):
    """A line of the page."""
    ratios = [during.p99_ms(kind) / before.p99_ms(kind) for kind in ("prompt", "classify")]
    counts = during.counts
    cells = [name, f"{spent:.0f}", counts["requests"], counts["failed"], counts["wrong"], counts["again"], counts["closed"]]
    cells += [counts["refused"]]
    cells += [f"{before.p99_ms('prompt'):.0f}", f"{during.p99_ms('prompt'):.0f}", *(f"{ratio:.1f}" for ratio in ratios)]
    return "| " + " | ".join(map(str, cells)) + " |", counts["failed"] + counts["wrong"]


def running(nodes, folder):
    """A cluster that serves both versions, with room for two replicas on a node, whose engines have a thread each."""
    repository = beside(folder)
    models = f"litemedsam,litemedsam@{VERSION},{CLIP}"
    variables = {"MEDSERVE_REPOSITORY__PATH": str(repository), "MEDSERVE_REPOSITORY__MODELS": models}
    return Cluster(nodes, room=2, MEDSERVE_ROUTER__REPLICAS="2", MEDSERVE_TRITON__THREADS="1", **variables)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("procedures", nargs="*", default=[*PROCEDURES])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--saturate", type=float, default=15, help="seconds in which capacity is measured")
    parser.add_argument("--part", type=float, default=0.6, help="the part of capacity that is asked for")
    parser.add_argument("--think", type=float, default=0.25, help="seconds between the calls of a session")
    parser.add_argument("--limit", type=float, help="cores that each node has and no more, as a machine of its own would")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--timeline", type=Path, help="write down what happened when, for tests/timeline.py")
    options = parser.parse_args()
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        cluster = opened.enter_context(running(options.nodes, folder))
        timeline = opened.enter_context(Timeline(cluster.pid)) if options.timeline else None
        found, load = asyncio.run(at_part_of_capacity(cluster, options.procedures, options, timeline))
        if timeline:
            timeline.save(options.timeline)
    rows = [row(*seen) for seen in together(found)]
    head = (
        "| procedure | seconds | requests | failed | wrong | asked again | closed | refused | p99, ms | during | ratio | S3's |"
    )
    table = "\n".join([head, "|" + " --- |" * 12, *(text for text, _ in rows)])
    print(table)
    if options.out:
        machine = "\n".join(f"- {name}: {value}" for name, value in describe().items())
        command = f"python tests/operations.py --nodes {options.nodes} --seconds {options.seconds:g} --part {options.part:g}"
        command += f" --limit {options.limit:g}" if options.limit else ""
        command = " ".join([command, *options.procedures])
        page = f"# Operations\n\n`{command}`, {time.strftime('%F')}\n\n{machine}\n- {load}\n\n{table}\n"
        (options.out / "operations.md").write_text(page)
    raise SystemExit(any(bad for _, bad in rows))


if __name__ == "__main__":
    main()
