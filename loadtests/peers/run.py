"""The peers beside the product, on this machine, one after the other: S1 at K = 1 and K = 8, and the first mask on a new image.

    python loadtests/peers/run.py --out peers.json [--only fastapi-naive --only ...] [--repeats 5] [--seconds 8]

Each peer has an environment of its own under the cache folder, made once from `requirements-*.txt`. A peer is started,
measured in turn with the product, and stopped; the product stays up, idle while a peer is measured. All get the same pictures
and prompts from the same client, run on all cores with the same threads, and answer with run lengths, which are compared with
the product's.
"""

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

HERE = Path(__file__).absolute().parent
CHECKOUT = HERE.parent.parent
sys.path[:0] = [str(CHECKOUT), str(HERE)]

from serving.bench import load, stock, wire  # noqa: E402
from serving.bench.bench import Bench  # noqa: E402
from serving.bench.figures import Result, Series, Spread, Table, Times, Verdict, median  # noqa: E402
from serving.bench.plain_triton import PlainTriton  # noqa: E402
from serving.bench.server import Running, Server, cpu_seconds  # noqa: E402
from serving.bench.wire import Ask  # noqa: E402
from serving.client import decode  # noqa: E402

START_S = 180
SATURATED = 8
OURS = "medserve"


def json_ask(path, body, kind, golden=b""):
    """A JSON call."""
    data = json.dumps(body).encode()
    return Ask(kind, wire.head(path, b"application/json", len(data)), data, golden=golden)


def file_ask(path, file, request, kind, golden=b""):
    """A multipart call: `image`, and `request` as a text field where there is one."""
    mark = wire.BOUNDARY
    part = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="i.png"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
    data = part % (mark, file)
    if request is not None:
        text = b'--%s\r\nContent-Disposition: form-data; name="request"\r\n\r\n%s\r\n'
        data += text % (mark, json.dumps(request).encode())
    data += b"--%s--\r\n" % mark
    return Ask(kind, wire.head(path, wire.MULTIPART, len(data)), data, golden=golden)


def said(prompt):
    """A prompt as the peers take it."""
    return {"box": prompt.box, "points": prompt.points}


@dataclass(frozen=True)
class Peer:
    """How it is started and asked. `command` takes {python}, {bin} and {port}; `ready`: a path that answers 200."""

    name: str
    venv: str
    command: str
    engines: str
    ready: str
    encode: object  # png -> Ask, or None where there is nothing to keep
    prompt: object  # (picture, image id or None, prompt) -> Ask
    first: object  # (png, prompt) -> Ask
    tidy: object = staticmethod(lambda body: body)  # the answer's JSON -> {"image_id": ...} or {"counts": ...}


def fastapi(name, module, engines, kept):
    """The FastAPI peers differ in their module and engines."""
    return Peer(
        name, "fastapi", "{bin}/uvicorn " + module + ":app --host 127.0.0.1 --port {port} --loop uvloop --http httptools"
        " --no-access-log --log-level warning", engines, "/health",
        (lambda png: file_ask("/images", png, None, "encode")) if kept else None,
        (lambda picture, image, prompt: json_ask("/segment", {"image_id": image, **said(prompt)}, "prompt"))
        if kept else (lambda picture, image, prompt: file_ask("/segment", picture.png, said(prompt), "prompt")),
        lambda png, prompt: file_ask("/first" if kept else "/segment", png, said(prompt), "first"),
    )  # fmt: skip


def b64(data):
    """Text of bytes."""
    return base64.b64encode(data).decode("ascii")


def v2(kind, **inputs):
    """A call of the Open Inference Protocol with strings."""
    tensors = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in inputs.items()]
    return json_ask("/v2/models/litemedsam/infer", {"inputs": tensors}, kind)


PEERS = (
    fastapi("fastapi-naive", "fastapi_naive", "stock", kept=False),
    fastapi("fastapi-tuned-stock", "fastapi_tuned", "stock", kept=True),
    fastapi("fastapi-tuned-ours", "fastapi_tuned", "ours", kept=True),
    Peer(
        "litserve", "litserve", "{python} litserve_peer.py {port}", "ours", "/health",
        lambda png: json_ask("/predict", {"image": b64(png)}, "encode"),
        lambda picture, image, prompt: json_ask("/predict", {"image_id": image, **said(prompt)}, "prompt"),
        lambda png, prompt: json_ask("/predict", {"image": b64(png), **said(prompt)}, "first"),
    ),
    Peer(
        "bentoml", "bentoml", "{bin}/bentoml serve -q bentoml_peer:Segment --host 127.0.0.1 --port {port}", "ours",
        "/readyz",
        lambda png: file_ask("/encode", png, None, "encode"),
        lambda picture, image, prompt: json_ask("/segment", {"image_id": image, **said(prompt)}, "prompt"),
        lambda png, prompt: file_ask("/first", png, said(prompt), "first"),
    ),
    Peer(
        "mlserver", "mlserver", "{bin}/mlserver start mlserver_peer", "ours", "/v2/models/litemedsam/ready",
        lambda png: v2("encode", image=b64(png)),
        lambda picture, image, prompt: v2("prompt", image_id=image, prompt=json.dumps(said(prompt))),
        lambda png, prompt: v2("first", image=b64(png), prompt=json.dumps(said(prompt))),
        lambda body: json.loads(body["outputs"][0]["data"][0]),
    ),
)  # fmt: skip
TRITONS = ("triton-message", "triton-shm")
ABOUT = {
    OURS: "our engines, Ray Serve and Triton, Features in shared memory",
    "fastapi-naive": "ONNX Runtime fp32, every prompt encodes anew",
    "fastapi-tuned-stock": "ONNX Runtime fp32, dict of encoded images",
    "fastapi-tuned-ours": "our engines in its own process, dict of encoded images",
    "litserve": "our engines, dict in its one worker",
    "bentoml": "our engines, dict in its one worker",
    "mlserver": "our engines, dict in its one process, Open Inference Protocol in JSON",
    "triton-message": "our engines, Features sent back with every prompt; mask and run lengths made by the client",
    "triton-shm": "our engines, Features in shared memory; mask and run lengths made by the client",
}


def say(line):
    """Progress."""
    print(f"peers: {line}", file=sys.stderr, flush=True)


def environment(cache, name):
    """The peer's environment, made where it is missing or its requirements changed."""
    folder, wanted = cache / "venvs" / name, (HERE / f"requirements-{name}.txt").read_text()
    stamp = folder / ".requirements"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"setting up the environment of {name}, once")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / f"requirements-{name}.txt")], check=True)
        stamp.write_text(wanted)
    return folder / "bin"


def free_port():
    """One that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(peer, cache, repository, stock_folder):
    """The peer's server: its URL, while the block runs. Ended by the id of the process group that was started for it."""
    bin_folder, port = environment(cache, peer.venv), free_port()
    environ = {
        **os.environ, "PEER_ENGINES": peer.engines, "PEER_STOCK": str(stock_folder), "PEER_REPOSITORY": str(repository),
        "PYTHONPATH": f"{HERE}:{HERE / 'mlserver_peer'}:{CHECKOUT}", "BENTOML_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1",
        "MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(free_port()), "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0", "MLSERVER_DEBUG": "false",
    }  # fmt: skip
    command = peer.command.format(python=bin_folder / "python", bin=bin_folder, port=port).split()
    log = (cache / f"peer-{peer.name}.log").open("wb")
    process = subprocess.Popen(command, cwd=HERE, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(process, url + peer.ready, Path(log.name))
        yield url
    finally:
        for number, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
            with suppress(ProcessLookupError):  # nobody of the group is left
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
        log.close()


def wait_ready(process, url, log):
    """Until it answers 200."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"it ended at once: {log.read_text()[-600:]}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"it was not ready in {START_S} s: {log.read_text()[-600:]}")


def streams(asks, workers):
    """An endless stream for each worker, every one starting elsewhere."""
    step = max(len(asks) // workers, 1)
    return [cycle(asks[n * step % len(asks) :] + asks[: n * step % len(asks)]) for n in range(workers)]


class Figures:
    """What was found, by server."""

    def __init__(self):
        self.one, self.rate, self.first, self.agreement, self.failed = {}, {}, {}, {}, {}
        self.paired, self.idle, self.lost = {}, [], {}

    def keep(self, name, one, rate, first, failed):
        """One repeat: seconds of single prompts, prompts a second, seconds of first masks."""
        self.one.setdefault(name, []).append(Times.of(one))
        self.rate.setdefault(name, []).append(rate)
        self.first.setdefault(name, []).append(1000 * median(first))
        self.failed[name] = self.failed.get(name, 0) + failed


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
    firsts = [wire.inline(p.png, p.prompts[0]) for p in bench.fresh(max(int(bench.seconds / 0.8), 3))]
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


def report(figures):
    """The page's part."""
    found = Result("peers", "The peers, side by side")
    limits = {
        "fastapi-tuned-stock": ("K = 8 against the tuned FastAPI with the stock decoder", 1.6),
        "fastapi-naive": ("K = 8 against the naive FastAPI", 20.0),
        "fastapi-tuned-ours": ("K = 8 against the tuned FastAPI with our engines in its process", 0.8),
    }
    for name, (what, limit) in limits.items():
        if name in figures.paired:
            note = f"{median(figures.rate[OURS]):.0f}/s, {median(figures.rate[name]):.1f}/s"
            found.verdicts.append(Verdict(what, median(figures.paired[name]), limit, ">=", "x", 2, note))
    found.verdicts.append(Verdict("failed requests", figures.failed.get(OURS, 0), 0, "<=", "", 0))
    table = Table(
        "Median (range) over the repeats; `ours / it`: prompts a second, measured in turn",
        ("server", "what it is", "K = 1 p50, ms", "K = 1 p95, ms", "K = 8, prompts/s", "ours / it", "first mask p50, ms",
         "mask IoU with ours, worst", "failed"),
    )  # fmt: skip
    names = [name for name in ABOUT if name in figures.rate]
    for name in names:
        one = figures.one[name]
        paired = Spread.of(figures.paired[name]).text(2) if name in figures.paired else ""
        cells = (
            Spread.of([t.p50_ms for t in one]).text(2), Spread.of([t.p95_ms for t in one]).text(2),
            Spread.of(figures.rate[name]).text(1), paired, Spread.of(figures.first[name]).text(0),
            f"{figures.agreement.get(name, 1.0):.4f}", str(figures.failed[name]),
        )  # fmt: skip
        table.add(name, ABOUT[name], *cells)
    found.tables.append(table)
    found.notes += wins(figures, names)
    found.notes += [f"{name} could not be measured: {reason[:300]}" for name, reason in figures.lost.items()]
    if figures.idle:
        found.notes.append(f"The product, idle beside a peer, used {100 * median(figures.idle):.1f} % of one core.")
    rates = {"prompts/s": [median(figures.rate[name]) for name in names]}
    found.series.append(Series("Prompts a second, K = 8", "", "prompts/s", names, rates, kind="bar", log=True))
    clicks = {
        "p50": [median(t.p50_ms for t in figures.one[n]) for n in names],
        "p95": [median(t.p95_ms for t in figures.one[n]) for n in names],
    }
    found.series.append(Series("Click to mask, K = 1", "", "ms", names, clicks, kind="bar", log=True))
    found.raw = {"paired": figures.paired, "rate": figures.rate, "first_ms": figures.first, "idle_cores": figures.idle}
    return found


def wins(figures, names):
    """Where a peer is better than the product, in words."""
    if OURS not in figures.rate:
        return []
    lines = []
    for name in names:
        if name == OURS:
            continue
        better = []
        for what, unit, mine, its in (
            ("K = 1 p50", "ms", median(t.p50_ms for t in figures.one[OURS]), median(t.p50_ms for t in figures.one[name])),
            ("K = 8", "prompts/s", -median(figures.rate[OURS]), -median(figures.rate[name])),
            ("first mask", "ms", median(figures.first[OURS]), median(figures.first[name])),
        ):
            if its < mine:
                better.append(f"{what} ({abs(its):.1f} against {abs(mine):.1f} {unit})")
        if better:
            lines.append(f"**{name} wins**: {', '.join(better)}.")
    return lines or ["No peer was better in any of the three figures."]


def main():
    """Run the chosen peers and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    parser.add_argument("--only", action="append", choices=[*(p.name for p in PEERS), *TRITONS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/medserve/bench").expanduser())
    parser.add_argument("--repository", type=Path, default=CHECKOUT / "model_repository")
    parser.add_argument("--url", default="", help="a product that runs already, with --grpc; its repository is --repository")
    parser.add_argument("--grpc", default="")
    parser.add_argument("--set-up", action="store_true", help="make the environments, measure nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    wanted = options.only or [*(p.name for p in PEERS), *TRITONS]
    if options.set_up:
        for name in sorted({p.venv for p in PEERS if p.name in wanted}):
            environment(options.cache, name)
        return
    folder = stock.export(options.cache / "stock", options.cache.parent, say)
    figures = Figures()
    say("starting the product")
    started = Server({"MEDSERVE_REPOSITORY__PATH": str(options.repository)})
    with Running(options.url, options.grpc) if options.url else started as server:
        bench = Bench(server, options.repository, options.cache, say, options.seconds, options.repeats)
        for peer in PEERS:
            if peer.name in wanted:
                say(f"starting {peer.name}")
                try:
                    one_peer(peer, bench, options.cache, options.repository, folder, figures)
                except (RuntimeError, OSError, KeyError, IndexError) as exc:
                    say(f"{peer.name} could not be measured: {exc}")
                    figures.lost[peer.name] = str(exc)
        if set(TRITONS) & set(wanted):
            say("starting a plain Triton")
            tritons(bench, options.repository, figures, [name for name in TRITONS if name in wanted])
    found = report(figures)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found.json(), indent=1, default=str) + "\n")
    for table in found.tables:
        for row in table.rows:
            say(" | ".join(row))
    for verdict in found.verdicts:
        say(verdict.line())


if __name__ == "__main__":
    main()
