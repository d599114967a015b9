"""The commands that talk to a running server: segment, segment-volume, classify, embed. One line an error, exit status 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli_picture import INSTALL, shown
from serving.client import Client, MedserveError, Progress, Segmentation
from serving.client.overlay import write_masks
from serving.client.volumes import OnProgress

Url = Annotated[str, typer.Option("--url", envvar="MEDSERVE_URL", help="Where the server is.")]
Token = Annotated[str | None, typer.Option("--token", envvar="MEDSERVE_TOKEN", help="Bearer token, where one is needed.")]
ModelName = Annotated[str | None, typer.Option("--model", help="A name of `GET /v1/models`; the server chooses otherwise.")]
Index = Annotated[int | None, typer.Option("--index", help="Frame or slice of a file that has several.")]
DeadlineS = Annotated[
    float | None, typer.Option("--deadline", min=0.001, help="Seconds until the answer must be there; else the server's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = "http://127.0.0.1:8000"


def add_client_commands(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command()(segment)
    app.command()(classify)
    app.command()(embed)
    app.command("segment-volume")(segment_volume)


def segment(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, DICOM, NIfTI or NRRD.")],
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 in pixels; one object each.")] = None,
    point: Annotated[list[str] | None, typer.Option("--point", help="x,y or x,y,+ or x,y,-; all of one object.")] = None,
    model: ModelName = None,
    index: Index = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A PNG: the masks over the image.")] = None,
    deadline_s: DeadlineS = None,
    as_json: AsJson = False,
    url: Url = HERE,
    token: Token = None,
) -> None:
    """Boxes and points on an image -> masks."""
    with _one_line_errors():
        boxes = [_box(each) for each in box or ()]
        points = [_point(each) for each in point or ()]
        with Client(url, token=token) as client:
            said = _given(boxes=boxes, points=points, index=index, deadline_s=deadline_s)
            found = client.segment(image, model=model, **said)
        if as_json:
            print(json.dumps(_plain(found)))
        else:
            for mask in found.masks:
                print(f"object {mask.object}  score {mask.score:.3f}  area {mask.area_px} px  box {_words(mask.box)}")
            print(f"model {found.model.name}  features {found.features}  " + _stages(found.stages_ms))
        # The answer is told before: a picture that cannot be written must not take it along.
        drawn = output is None or write_masks(output, shown(image, index), [mask.array for mask in found.masks])
    if not drawn:
        typer.echo(f"medserve: the masks are on black: to show this file too, {INSTALL}", err=True)
    if output is not None and not as_json:
        print(f"wrote {output}")


def classify(
    images: Annotated[list[Path], typer.Argument(help="One or more images.")],
    label: Annotated[list[str], typer.Option("--label", "-l", help="A candidate label; repeat it.")],
    template: Annotated[list[str] | None, typer.Option("--template", help="A sentence with one {} for the label.")] = None,
    model: ModelName = None,
    index: Index = None,
    as_json: AsJson = False,
    url: Url = HERE,
    token: Token = None,
) -> None:
    """Labels on images -> scores."""
    with _one_line_errors(), Client(url, token=token) as client:
        found = client.classify(list(images), label, model=model, **_given(templates=template, index=index))
    if as_json:
        body = {"labels": found.labels, "scores": found.scores.tolist(), "scoring": found.scoring, "model": found.model.name}
        print(json.dumps(body))
        return
    for path, row in zip(images, found.scores, strict=True):
        print(f"{path}  ({found.model.name}{', demonstration' if found.model.demonstration else ''}, {found.scoring})")
        for value, name in sorted(zip(row.tolist(), found.labels, strict=True), reverse=True):
            print(f"  {value:.4f}  {name}")


def embed(
    images: Annotated[list[Path] | None, typer.Argument(help="Images; or give --text.")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", "-t", help="A text; repeat it.")] = None,
    model: ModelName = None,
    index: Index = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .npy file for the vectors.")] = None,
    as_json: AsJson = False,
    url: Url = HERE,
    token: Token = None,
) -> None:
    """Images or texts -> vectors."""
    with _one_line_errors():
        with Client(url, token=token) as client:
            found = client.embed(list(images or ()), text or (), model=model, **_given(index=index))
        if output is not None:
            import numpy as np

            np.save(output, found.vectors)
    if as_json:
        print(json.dumps({"vectors": found.vectors.tolist(), "model": found.model.name}))
        return
    print(f"{found.vectors.shape[0]} vectors of {found.vectors.shape[1]} numbers from {found.model.name}")
    if output is not None:
        print(f"wrote {output}")


def segment_volume(
    volume: Annotated[list[Path], typer.Argument(help="NIfTI, NRRD, a ZIP or a folder of a DICOM series, or its files.")],
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,z0,x1,y1,z1, both slices; one object each.")] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="A structure to be found by name; repeat it.")] = None,
    supports: Annotated[str | None, typer.Option("--supports", help="The support set that shows the classes.")] = None,
    slice_: Annotated[int | None, typer.Option("--slice", help="The key slice of boxes x0,y0,x1,y1.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help=".nii.gz or .nrrd; anything else gets packed bits.")] = Path(
        "mask.nii.gz"
    ),
    window: Annotated[str | None, typer.Option("--window", help="center,width in the volume's units.")] = None,
    axis: Annotated[int, typer.Option("--axis", help="The array axis along which slices are counted.")] = 2,
    model: ModelName = None,
    deadline_s: DeadlineS = None,
    as_json: AsJson = False,
    url: Url = HERE,
    token: Token = None,
) -> None:
    """Boxes in a volume, or structures by name -> a label map of the same geometry. Ctrl-C cancels."""
    with _one_line_errors():
        boxes = [_numbers(each, "x0,y0,z0,x1,y1,z1") for each in box or ()]
        given = _given(slice=slice_, window=_window(window), output=_volume_format(output), axis=axis)
        given |= _given(boxes=boxes or None, classes=classes or None, supports=supports, deadline_s=deadline_s)
        with Client(url, token=token) as client, _progress_line() as progress:
            source: Any = volume[0] if len(volume) == 1 else volume
            found = client.segment_volume(source, progress=progress, model=model, **given)
        found.save(output)
    if as_json:
        told = [vars(each) for each in found.objects]
        print(json.dumps({"objects": told, "model": found.model.name, "format": found.format, "stages_ms": found.stages_ms}))
        return
    for each in found.objects:
        where = "nowhere" if each.first is None else f"slices {each.first} to {each.last}"
        print(f"object {each.object}  {each.voxels} voxels  {where}")
    print(f"model {found.model.name}  " + _stages(found.stages_ms))
    print(f"wrote {output}")


@contextmanager
def _progress_line() -> Iterator[OnProgress]:
    """A line a stage on standard error that counts its steps or slices; where that is no terminal, each stage's last."""
    last = stage = ""

    def end() -> None:
        if last:
            print("" if sys.stderr.isatty() else last, file=sys.stderr, flush=True)

    def told(progress: Progress) -> None:
        nonlocal last, stage
        if progress.stage != stage:
            end()
        stage = progress.stage
        what = "looking for the structures, step" if stage == "locate" else f"slice {progress.slice},"
        last = f"medserve: {what} {progress.done} of {progress.total}"
        if sys.stderr.isatty():
            print(f"\r{last}  ", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        end()


def _window(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    numbers = _numbers(text, "center,width")
    if len(numbers) != 2:
        raise ValueError(f"{text} is not center,width")
    return {"center": numbers[0], "width": numbers[1]}


def _volume_format(path: Path) -> str:
    name = path.name.lower()
    return "nifti" if name.endswith(".nii.gz") else "nrrd" if name.endswith(".nrrd") else "packed"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (MedserveError, ValueError) as exc:
        typer.echo(f"medserve: {exc}", err=True)
        raise typer.Exit(1) from exc
    except OSError as exc:
        typer.echo(f"medserve: {exc.filename}: {exc.strerror}", err=True)
        raise typer.Exit(1) from exc


def _given(**options: Any) -> Any:
    return {name: value for name, value in options.items() if value not in (None, [])}


def _numbers(text: str, right: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise ValueError(f"{text} is not {right}") from exc


def _box(text: str) -> list[float]:
    numbers = _numbers(text, "x0,y0,x1,y1")
    if len(numbers) != 4:
        raise ValueError(f"{text} is not x0,y0,x1,y1")
    return numbers


def _point(text: str) -> list[float]:
    place, _, sign = text.rpartition(",")
    if sign in ("+", "-"):
        return [*_numbers(place, "x,y"), 1.0 if sign == "+" else 0.0]
    numbers = _numbers(text, "x,y with + or - after it")
    if len(numbers) != 2:
        raise ValueError(f"{text} is not x,y with + or - after it")
    return [*numbers, 1.0]


def _words(box: tuple[int, ...] | None) -> str:
    return "none" if box is None else ",".join(map(str, box))


def _stages(stages_ms: dict[str, float]) -> str:
    return "  ".join(f"{name} {ms:.1f} ms" for name, ms in stages_ms.items())


def _plain(found: Segmentation) -> dict[str, Any]:
    masks = [
        {
            "object": mask.object,
            "score": mask.score,
            "area_px": mask.area_px,
            "box": mask.box,
            "size": mask.size,
            "format": mask.format,
            "counts": mask.data.decode("ascii"),
        }
        for mask in found.masks
    ]
    told = {"image_id": found.image_id, "model": found.model.name, "features": found.features, "stages_ms": found.stages_ms}
    return {"masks": masks, **told}
