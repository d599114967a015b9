"""`medserve bench`: measure, judge, write the page."""

from __future__ import annotations

import importlib
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from serving.bench.figures import Result, Verdict
from serving.errors import SetupError
from serving.settings import load

SCENARIOS = ("s1", "s2", "s3", "s4", "s5")
LONG = ("peers", "faults", "soak")
ScenarioArgument = Annotated[
    list[str] | None, typer.Argument(help=f"Of {', '.join((*SCENARIOS, *LONG))}, or all; s1 to s5 unless said.")
]


def _say(line: str) -> None:
    print(f"medserve: {line}", file=sys.stderr, flush=True)


def bench(
    scenarios: ScenarioArgument = None,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.2, help="Of one measured stretch.")] = 8.0,
    soak_s: Annotated[float, typer.Option(min=4, help="How long the soak takes.")] = 600.0,
    quick: Annotated[bool, typer.Option("--quick", help="One repeat of a second each, the judged points alone.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the JSON, the page and its pictures.")] = Path("build/bench"),
    name: Annotated[str, typer.Option(help="The page's name; today's date unless said.")] = "",
    url: Annotated[str, typer.Option(help="A server that runs already; its repository must be this one's.")] = "",
    grpc: Annotated[str, typer.Option(help="Its gRPC address, host:port.")] = "",
) -> None:
    """Measure the server beside its bare engines on this machine and judge it. Exit status 1 where a line misses."""
    # Ended from outside it still stops the server that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = _chosen(scenarios or [])
    if bool(url) != bool(grpc):
        raise SetupError("--url and --grpc go together")
    found = _measure(chosen, 1 if quick else repeats, 1.0 if quick else seconds, soak_s, quick, url, grpc, out, name)
    lines = [(each.name, verdict) for each in found for verdict in each.verdicts]
    for scenario, verdict in lines:
        print(f"{scenario:6} {verdict.line()}")
    if any(not verdict.passed for _, verdict in lines):
        raise typer.Exit(1)


def add_bench(app: typer.Typer) -> None:
    """Put the command on the product's command line."""
    app.command("bench")(bench)


def _chosen(named: list[str]) -> list[str]:
    known = (*SCENARIOS, *LONG)
    wanted = list(known) if "all" in named else named or list(SCENARIOS)
    for each in wanted:
        if each not in known:
            raise SetupError(f"no scenario {each}: there are {', '.join(known)}, and all")
    return wanted


def _measure(
    chosen: list[str], repeats: int, seconds: float, soak_s: float, quick: bool, url: str, grpc: str, out: Path, name: str
) -> list[Result]:
    from serving.bench import clip_b32, machine, report
    from serving.bench.bench import Bench
    from serving.bench.server import Running, Server

    settings = load()
    cache = settings.home / "bench"
    repository = settings.repository.path
    described = machine.describe()
    if "s3" in chosen:
        repository = clip_b32.repository(cache, repository, _say)
    saved = out / f"{name or time.strftime('%F')}.json"
    command = shlex.join(["medserve", *sys.argv[1:]])
    options = {"repeats": repeats, "seconds a stretch": seconds, "quick": quick}
    found: list[Result] = []
    with ExitStack() as stack:
        server: Server | None = None
        for scenario in chosen:
            if scenario in ("faults", "peers"):
                stack.close()
                server = None
            elif server is None:
                _say("starting the server")
                environ = {"MEDSERVE_REPOSITORY__PATH": str(repository)}
                server = stack.enter_context(Running(url, grpc) if url else Server(environ))
            context = Bench(server or Server(), repository, cache, _say, seconds, repeats, quick, soak_s, settings.home)
            try:
                result: Result = importlib.import_module(f"serving.bench.{scenario}").measure(context)
            except Exception as exc:
                if len(chosen) == 1:
                    raise
                _say(f"{scenario} failed: {exc!r}")
                end = Verdict("the scenario runs to its end", 0, 1, ">=", "", 0, type(exc).__name__)
                result = Result(scenario, f"{scenario}: failed", [end], notes=[f"It failed: {exc!r}"])
            found.append(result)
            for verdict in result.verdicts:
                _say(f"{scenario} {verdict.line()}")
            report.save(saved, found, described, command, options)
    _say(f"wrote {report.write_page(saved, f'Benchmark of {saved.stem}')} and {saved}")
    return found
