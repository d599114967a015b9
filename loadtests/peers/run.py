"""The peers beside the product, on this machine, one after the other: S1 at K = 1 and K = 8, and the first mask on a new image.

    python loadtests/peers/run.py --out peers.json [--only fastapi-naive --only ...] [--repeats 5] [--seconds 8]

Each peer has an environment of its own under the cache folder, made once from `requirements-*.txt`. A peer is started,
measured in turn with the product, and stopped; the product stays up, idle while a peer is measured. All get the same pictures
and prompts from the same client, run on all cores with the same threads, and answer with run lengths, which are compared with
the product's.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent
CHECKOUT = HERE.parent.parent
sys.path[:0] = [str(CHECKOUT), str(HERE)]

from environments import environment, say  # noqa: E402
from measuring import one_peer, tritons  # noqa: E402
from peer import PEERS, TRITONS  # noqa: E402
from reporting import Figures, report  # noqa: E402

from serving.bench import stock  # noqa: E402
from serving.bench.bench import Bench  # noqa: E402
from serving.bench.server import Running, Server  # noqa: E402


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
