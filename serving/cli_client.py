"""The commands that talk to a running server: segment, classify, embed. One line an error, exit status 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.client import Client, MedserveError, Segmentation
from serving.client.overlay import write_masks

Url = Annotated[str, typer.Option("--url", envvar="MEDSERVE_URL", help="Where the server is.")]
Token = Annotated[str | None, typer.Option("--token", envvar="MEDSERVE_TOKEN", help="Bearer token, where one is needed.")]
ModelName = Annotated[str | None, typer.Option("--model", help="A name of `GET /v1/models`; the server chooses otherwise.")]
Index = Annotated[int | None, typer.Option("--index", help="Frame or slice of a file that has several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = "http://127.0.0.1:8000"


def add_client_commands(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command()(segment)
    app.command()(classify)
    app.command()(embed)


def segment(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, DICOM, NIfTI or NRRD.")],
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 in pixels; one object each.")] = None,
    point: Annotated[list[str] | None, typer.Option("--point", help="x,y or x,y,+ or x,y,-; all of one object.")] = None,
    model: ModelName = None,
    index: Index = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A PNG: the masks over the image.")] = None,
    as_json: AsJson = False,
    url: Url = HERE,
    token: Token = None,
) -> None:
    """Boxes and points on an image -> masks."""
    with _one_line_errors():
        boxes = [_box(each) for each in box or ()]
        points = [_point(each) for each in point or ()]
        with Client(url, token=token) as client:
            found = client.segment(image, model=model, **_given(boxes=boxes, points=points, index=index))
        if output is not None:
            write_masks(output, image, [mask.array for mask in found.masks])
    if as_json:
        print(json.dumps(_plain(found)))
        return
    for mask in found.masks:
        print(f"object {mask.object}  score {mask.score:.3f}  area {mask.area_px} px  box {_words(mask.box)}")
    print(f"model {found.model.name}  features {found.features}  " + _stages(found.stages_ms))
    if output is not None:
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
