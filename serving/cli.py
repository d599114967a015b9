"""The command line. Every failure is one line that says what to do, and exit status 1."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from serving import __version__
from serving.bench.cli import add_bench
from serving.build.cli import models
from serving.cli_client import add_client_commands
from serving.errors import SetupError
from serving.settings import Settings, load

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve the promptable foundation models of medical imaging. Research use; not a medical device.",
)
app.add_typer(models, name="models", help="What can be served: list, pull, build, verify, prune.")
node = typer.Typer(no_args_is_help=True)
app.add_typer(node, name="node", help="A node of a cluster: drain.")
add_client_commands(app)
add_bench(app)

WHOLE = "`make setup`, or pip install -e '.[serve,local,build]', in medserve's checkout"
ConfigOption = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings.")]


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(f"medserve: {line}", file=sys.stderr, flush=True)


def _settings(config: Path | None, http_port: int | None, grpc_port: int | None) -> Settings:
    overrides: dict[str, Any] = {}
    if http_port is not None:
        overrides["http"] = {"port": http_port}
    if grpc_port is not None:
        overrides["grpc"] = {"port": grpc_port}
    return load(config, **overrides)


@app.command()
def up(
    config: ConfigOption = None,
    http_port: Annotated[int | None, typer.Option(help="0 takes a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="0 takes a free one.")] = None,
) -> None:
    """Start everything here and stay up until Ctrl-C."""
    from serving.local.up import Stack, wait_for_signal

    with Stack(_settings(config, http_port, grpc_port), say) as stack:
        say(f"ready: HTTP {stack.http_url}  docs {stack.http_url}/docs  gRPC {stack.grpc_address}  (Ctrl-C stops)")
        wait_for_signal()
        say("stopping")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the overlay pictures go.")] = Path("demo"),
    config: ConfigOption = None,
) -> None:
    """Start, run one visual and one text prompt over HTTP and gRPC on real images, draw the overlay, stop."""
    from serving.local.demo import run

    run(_settings(config, 0, 0), out, say)


@app.command()
def doctor(
    config: ConfigOption = None,
    url: Annotated[str, typer.Option(help="Check a running server or cluster: the URL of its HTTP front.")] = "",
    grpc: Annotated[str, typer.Option(help="With --url: host:port of its gRPC front.")] = "",
    ray: Annotated[str, typer.Option(help="With --url: the URL of its Ray dashboard.")] = "",
    token: Annotated[str, typer.Option(envvar="MEDSERVE_TOKEN", help="With --url: a bearer token, where one is needed.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this machine, or a running cluster: each finding with what to do. Exit status 1 where one fails."""
    from serving.local.doctor import examine, examine_cluster

    if (grpc or ray) and not url:
        raise SetupError("--grpc and --ray are of the server at --url: say it too")
    findings = examine_cluster(url, grpc, ray, token) if url else examine(load(config))
    if as_json:
        print(json.dumps([finding.told() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding.line())
    if any(finding.bad for finding in findings):
        raise typer.Exit(1)


@node.command()
def drain(
    address: Annotated[str, typer.Option(help="The Ray cluster's address; auto finds this node's.")] = "auto",
    node_id: Annotated[str, typer.Option(help="Hex id of the node; this one unless said.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds until the node goes.")] = 60.0,
) -> None:
    """Move a node's work elsewhere and wait until it holds none: before the node goes, or as a pod's preStop hook."""
    from serving.local.drain import drain as drain_node

    drain_node(address, node_id, timeout, say)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """The entry point."""
    try:
        app()
    except SetupError as exc:
        print(f"medserve: {exc}", file=sys.stderr)
        raise SystemExit(1) from exc
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] == "serving":
            raise
        print(f"medserve: this needs {exc.name}, which a light client does not have: {WHOLE}", file=sys.stderr)
        raise SystemExit(1) from exc
