"""`medserve models`: what can be served, and how it gets into the repository."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.build import sources, weights
from serving.build.catalogue import find
from serving.errors import SetupError
from serving.settings import load

if TYPE_CHECKING:
    from serving.build.recipes import Choices
    from serving.build.weights import Checkpoint

models = typer.Typer(no_args_is_help=True)

CheckpointOption = Annotated[list[Path] | None, typer.Option("--checkpoint", help="Your own file; several for an ensemble.")]


class Profile(StrEnum):
    """What engines are built for."""

    CPU = "cpu"
    TENSORRT = "tensorrt"


def _say(line: str) -> None:
    print(f"medserve: {line}", file=sys.stderr, flush=True)


@models.command("list")
def list_models() -> None:
    """What the catalogue holds: pool, licence, source, what was pulled, and what is built at which precision."""
    from serving.build.listing import lines

    settings = load()
    print("\n".join(lines(settings.repository.path, settings.home)))


@models.command()
def pull(
    name: str,
    source: Annotated[str, typer.Option("--from", help="https://..., hf:OWNER/REPO@COMMIT/PATH, or a file.")] = "",
    sha256: Annotated[str, typer.Option(help="The digest that the file must have; a URL needs one.")] = "",
) -> None:
    """Fetch the weights once; afterwards no network is needed. A download that broke off goes on where it ended."""
    entry = find(name)
    if sha256 and not source:
        raise SetupError("--sha256 goes with --from SOURCE: the catalogue's own weights have their digest there")
    settings = load()
    wanted = sources.parse(source, sha256) if source else None
    found = weights.pull(entry, settings.home, _say, wanted, no_network=settings.offline)
    print(f"{entry.name}: {found.path}\nsha256 {found.sha256}\n{entry.licence}, from {found.source}")


@models.command()
def build(
    name: str,
    checkpoint: CheckpointOption = None,
    served_as: Annotated[str, typer.Option("--name", help="Serve it under this name.")] = "",
    version: Annotated[str, typer.Option(help="Serve it beside the model, as NAME@VERSION.")] = "",
    preprocessing: Annotated[str, typer.Option(help="How the checkpoint was trained to see images.")] = "",
    tokenizer: Annotated[Path | None, typer.Option(help="vocab.txt, tokenizer.json or spiece.model, if not beside it.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, what the model lets you choose.")] = None,
    profile: Annotated[Profile, typer.Option(help="cpu (OpenVINO, ONNX Runtime) or tensorrt.")] = Profile.CPU,
    precision: Annotated[str, typer.Option(help="tensorrt: bf16, bf16-projections or f32; otherwise the gate decides.")] = "",
    batch: Annotated[int, typer.Option(min=0, help="tensorrt: most images in a batch; 0 is the family's.")] = 0,
) -> None:
    """Make the engines of a model and compare them with PyTorch on real images."""
    from serving.build.build import build as build_model
    from serving.build.build import prepare

    settings = load()
    repository = settings.repository.path
    if profile is Profile.TENSORRT:
        prepared = prepare(
            name,
            settings.home,
            checkpoint or (),
            preprocessing,
            _say,
            tokenizer=tokenizer,
            options=option or (),
            offline=settings.offline,
        )
        _build_tensorrt(prepared, served_as or name, precision, batch)
        return
    if precision or batch:
        raise SetupError("--precision and --batch are of the profile tensorrt: on a CPU the gate chooses at each build")
    built = build_model(
        name,
        settings.home,
        repository,
        checkpoints=checkpoint or (),
        served_as=served_as,
        version=version,
        preprocessing=preprocessing,
        tokenizer=tokenizer,
        options=option or (),
        offline=settings.offline,
        say=_say,
    )
    for manifest in built:
        for part, records in manifest.engines.items():
            worst = max((v for r in records for k, v in r.parity.items() if k.endswith("max_abs")), default=0.0)
            print(f"{manifest.model}  {part}  {records[0].name}  {manifest.precision}  largest difference {worst:.1e}")


@models.command()
def verify(
    name: str,
    checkpoint: Annotated[Path | None, typer.Option(help="The file it was built of, where it is not in the store.")] = None,
) -> None:
    """Check a built model: artefacts, precision gate, parity with PyTorch, and a request through a real Triton."""
    from serving.build.verify import verify as checks

    failed = False
    for check in checks(name, load(), _say, checkpoint):
        print(check.line(), flush=True)
        failed |= check.state == "fail"
    if failed:
        raise typer.Exit(1)


@models.command()
def prune(yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False) -> None:
    """Remove engine versions, weights and plans that no record names. Without --yes it only says which."""
    from serving.build import prune as pruning

    settings = load()
    found = pruning.find(settings.repository.path, settings.home)
    for waste in found:
        print(f"{waste.nbytes >> 20:>6} MiB  {waste.path}  {waste.why}")
        if yes:
            pruning.remove(waste)
    total = sum(waste.nbytes for waste in found) >> 20
    print(f"{total} MiB {'removed' if yes else 'could go: say --yes'}" if found else "nothing to remove")


@models.command()
def docs(
    out: Annotated[Path, typer.Option(help="Where the pages go.")] = Path("docs/models"),
    records: Annotated[bool, typer.Option("--records", help="Add what is built here.")] = False,
) -> None:
    """Write a page for every entry of the catalogue from the families' declarations."""
    from serving.build.docs import write
    from serving.manifest import read_all

    changed = write(out, read_all(load().repository.path) if records else ())
    print(f"{out}: {', '.join(changed)}" if changed else f"{out} is up to date")


@models.command()
def configs() -> None:
    """Write the repository's configurations of every entry again, at the sizes of the published checkpoints."""
    from serving.build.catalogue import ENTRIES
    from serving.build.published import configurations

    repository = load().repository.path
    for entry in ENTRIES.values():
        for path, text in configurations(entry).items():
            target = repository / path
            if not target.exists() or target.read_text() != text:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                print(target)


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


def _build_tensorrt(prepared: tuple[Choices, tuple[Checkpoint, ...]], stem: str, precision: str, batch: int) -> None:
    from serving.build.build_tensorrt import build_plans

    settings = load()
    choices, sources = prepared
    made = build_plans(
        choices,
        sources,
        settings.home,
        settings.repository.path,
        stem=stem,
        precision=precision,
        batch=batch,
        say=_say,
    )
    for plan in made:
        print(f"{plan.record['engine']}  {plan.record['builder']}  {plan.record['precision']}  {plan.folder / 'model.plan'}")
    deployed = all(plan.record["deployed"] for plan in made)
    print("Not verified: no plan was run, for that needs a GPU; bf16 was judged by emulation on the CPU.")
    print("Deployed: a GPU's Triton serves them." if deployed else "Not deployed: what is served stays as it was.")
