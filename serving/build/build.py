"""`medserve models build`: checkpoint -> engines in the model repository, compared with PyTorch, with a record beside them."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.build import config, recipes, weights
from serving.build.catalogue import DEMONSTRATION, ENTRIES, Entry, find
from serving.build.recipes import Choices
from serving.build.weights import Checkpoint, Say
from serving.errors import SetupError
from serving.manifest import EngineRecord, Manifest

if TYPE_CHECKING:
    from serving.build.parts import Parts

STAMP = "stamp"
PRECISION = "f32"


def build(
    name: str,
    home: Path,
    repository: Path,
    *,
    checkpoints: Sequence[Path] = (),
    served_as: str = "",
    version: str = "",
    preprocessing: str = "",
    say: Say,
) -> tuple[Manifest, ...]:
    """Build every model of a catalogue entry. Does nothing where all of it is built from the same weights by the same code.

    `checkpoints`: the user's own, several for an ensemble; `served_as`: a name of one's own; `version`: beside the model of
    that name, as NAME@VERSION; `preprocessing`: one of the entry's. Raises SetupError.
    """
    entry = find(name)
    choices = Choices(entry, _preprocessing(entry, preprocessing))
    sources = _sources(entry, home, checkpoints, say)
    mark = _mark(version)
    stem = (served_as or name) + mark
    stamp = _stamp(sources, choices)
    models = [(stem if model == name else model + mark, family) for model, family in entry.models]
    kept = [_up_to_date(repository, model, stamp) for model, _ in models]
    if all(kept):
        say(f"{stem} is built")
        return tuple(manifest for manifest in kept if manifest)
    started = time.monotonic()
    say(f"building {stem}: loading PyTorch")
    records, options, versions = _build_engines(choices, models[0][1], sources, repository, stem, say)
    built = []
    for model, family in models:
        manifest = _manifest(entry, model, family, sources, records, {**options, **recipes.of(family).own(entry)})
        manifest = manifest.model_copy(update={"versions": {**versions, STAMP: stamp}})
        manifest.write(repository)
        built.append(manifest)
    say(f"{stem} is built in {time.monotonic() - started:.0f} s")
    return tuple(built)


def _mark(version: str) -> str:
    if version and not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.-]{0,31}", version):
        raise SetupError("a version is 1 to 32 letters, digits, dots and dashes")
    return f"@{version}" if version else ""


def _preprocessing(entry: Entry, asked: str) -> str:
    if asked and asked not in entry.preprocessings:
        known = f"it has: {', '.join(entry.preprocessings)}" if entry.preprocessings else "it has one only"
        raise SetupError(f"{entry.name} has no preprocessing {asked}; {known}")
    return asked


def _sources(entry: Entry, home: Path, checkpoints: Sequence[Path], say: Say) -> tuple[Checkpoint, ...]:
    if checkpoints:
        if len(checkpoints) > 1 and not entry.ensemble:
            several = ", ".join(e.name for e in ENTRIES.values() if e.ensemble)
            raise SetupError(f"{entry.name} takes one checkpoint; an ensemble is for: {several}")
        return tuple(weights.own(path, entry) for path in sorted(checkpoints))
    if entry.weights == "package":
        path = DEMONSTRATION / "weights.safetensors"
        return (Checkpoint(path, weights.digest(path), entry.source, entry.licence),)
    return (weights.pull(entry, home, say),)


def _stamp(sources: Sequence[Checkpoint], choices: Choices) -> str:
    """Equal stamps: the same weights, choices and building code make the same engines."""
    found = hashlib.sha256(choices.preprocessing.encode())
    for source in sources:
        found.update(source.sha256.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _up_to_date(repository: Path, model: str, stamp: str) -> Manifest | None:
    path = repository / f"{model}.json"
    if not path.exists():
        return None
    manifest = Manifest.model_validate_json(path.read_text())
    whole = all(any((repository / e.name / e.version).glob("model.*")) for parts in manifest.engines.values() for e in parts)
    return manifest if whole and manifest.versions.get(STAMP) == stamp else None


def _build_engines(
    choices: Choices, family: str, sources: Sequence[Checkpoint], repository: Path, stem: str, say: Say
) -> tuple[dict[str, tuple[EngineRecord, ...]], dict[str, Any], Mapping[str, str]]:
    from serving.build import export

    entry, recipe = choices.entry, recipes.of(family)
    records: dict[str, list[EngineRecord]] = {}
    options: dict[str, Any] = {}
    for number, source in enumerate(sources, start=1):
        parts = recipe.parts(weights.read(source.path), choices)
        draft = Manifest(
            model=stem,
            family=family,
            pool=entry.pool,
            digest=source.sha256,
            source="",
            licence="",
            engines={},
            options=parts.options,
        )
        if options and options != parts.options:
            raise SetupError(f"checkpoint {source.path.name} has other sizes than the first of the ensemble")
        options = parts.options
        for part_name, spec in recipe.specs(draft).items():
            say(f"building {spec.name} ({number} of {len(sources)})" if len(sources) > 1 else f"building {spec.name}")
            record = _build_part(parts, part_name, repository / spec.name, str(number))
            config.write(repository / spec.name, spec, parts.parts[part_name].backend)
            records.setdefault(part_name, []).append(record)
    return {part: tuple(found) for part, found in records.items()}, options, export.versions()


def _build_part(parts: Parts, part_name: str, folder: Path, version: str) -> EngineRecord:
    """Export, compile and compare in a temporary folder, then put it in its place whole."""
    from serving.build import export

    part = parts.parts[part_name]
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=folder.parent))
    try:
        export.to_onnx(part, work / "model.onnx")
        if part.backend == "openvino":
            export.to_openvino(work / "model.onnx", work / "model.xml")
        parity = export.compare(part, work, parts.samples[part_name])
        artefact = work / ("model.bin" if part.backend == "openvino" else "model.onnx")
        digest = weights.digest(artefact)
        target = folder / version
        shutil.rmtree(target, ignore_errors=True)
        work.chmod(0o755)
        work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return EngineRecord(name=folder.name, version=version, digest=digest, precision=PRECISION, parity=parity)


def _manifest(
    entry: Entry,
    model: str,
    family: str,
    sources: Sequence[Checkpoint],
    records: dict[str, tuple[EngineRecord, ...]],
    options: dict[str, Any],
) -> Manifest:
    digests = [source.sha256 for source in sources]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return Manifest(
        model=model,
        family=family,
        pool=entry.pool,
        digest=digest,
        source=sources[0].source,
        licence=entry.licence,
        demonstration=entry.demonstration,
        precision=PRECISION,
        engines=records,
        options=options,
        built_at=time.strftime("%FT%TZ", time.gmtime()),
    )
