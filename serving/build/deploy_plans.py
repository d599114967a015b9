"""Plans that passed their gate become what a GPU's Triton serves: `model.plan` in the repository and a record that says so."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.build import plans
from serving.build.catalogue import Entry
from serving.build.weights import Checkpoint
from serving.errors import SetupError
from serving.manifest import EngineRecord, Manifest

DATA_CENTRE = "tensorrt"
"""Only this package's plans are taken by Triton's TensorRT backend; those of TensorRT-RTX need its own runtime."""


def deploy(
    folders: Sequence[Path], entry: Entry, sources: Sequence[Checkpoint], options: dict[str, Any], stem: str, repository: Path
) -> tuple[Manifest, ...]:
    """Put the plans of a whole model into their places, then write its records; the plans' records say that they are deployed.

    Raises SetupError, with nothing changed, where a plan is another package's, is damaged or has not passed its gate.
    """
    held = [(folder, plans.read(folder)) for folder in folders]
    for folder, record in held:
        _may(folder, record)
    engines: dict[str, list[EngineRecord]] = {}
    for folder, record in held:
        _place(folder / plans.PLAN, repository / record["engine"] / record["model_version"])
        engines.setdefault(record["part"], []).append(
            EngineRecord(
                name=record["engine"],
                version=record["model_version"],
                digest=record["digest"],
                precision=record["precision"],
                gate=record["gate"],
                features="region",
            )
        )
        plans.note(folder, deployed=True)
    made = tuple(_record(model, family, entry, sources, engines, options, stem, held[0][1]) for model, family in entry.models)
    for manifest in made:
        manifest.write(repository)
    return made


def _may(folder: Path, record: dict[str, Any]) -> None:
    if not record or hashlib.sha256((folder / plans.PLAN).read_bytes()).hexdigest() != record["digest"]:
        raise SetupError(f"the plan in {folder.name} is damaged: build it again")
    if not str(record["builder"]).startswith(f"{DATA_CENTRE}-1"):
        raise SetupError(f"{record['engine']} is a plan of {record['builder']}: Triton takes those of the package tensorrt")
    if record["precision"] != "f32" and not record["gate"].get("passed"):
        raise SetupError(f"{record['engine']} has not passed the precision gate at {record['precision']}")


def _place(plan: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{plan.name}.part"
    shutil.copyfile(plan, part)
    part.replace(folder / plan.name)


def _record(
    model: str,
    family: str,
    entry: Entry,
    sources: Sequence[Checkpoint],
    engines: dict[str, list[EngineRecord]],
    options: dict[str, Any],
    stem: str,
    first: dict[str, Any],
) -> Manifest:
    from serving.build import recipes

    digests = [source.sha256 for source in sources]
    return Manifest(
        model=stem if model == entry.name else model,
        family=family,
        pool=entry.pool,
        digest=digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest(),
        source=sources[0].source,
        licence=entry.licence,
        demonstration=entry.demonstration,
        precision="+".join(sorted({e.precision for found in engines.values() for e in found})),
        engines={part: tuple(found) for part, found in engines.items()},
        options={**options, **recipes.of(family).own(entry)},
        versions={first["builder"].rsplit("-", 1)[0]: first["version"], "compute capability": first["capability"]},
        built_at=time.strftime("%FT%TZ", time.gmtime()),
    )
