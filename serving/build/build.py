"""`medserve models build`: checkpoint -> engines in the model repository, compared with PyTorch, with a record beside them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.build import config, weights
from serving.build.catalogue import Entry, find
from serving.build.weights import Checkpoint, Say
from serving.domain.prompt import Labels
from serving.errors import SetupError
from serving.families.chexzero import engines as chexzero_engines
from serving.families.clip import engines as clip_engines
from serving.families.litemedsam import engines as litemedsam_engines
from serving.manifest import EngineRecord, Manifest

if TYPE_CHECKING:
    from serving.build.parts import Parts

DEMONSTRATION = Path(__file__).resolve().parent.parent / "demonstration"
SPECS = {"litemedsam": litemedsam_engines.specs, "clip": clip_engines.specs, "chexzero": chexzero_engines.specs}
STAMP = "stamp"
PRECISION = "f32"


def build(
    name: str, home: Path, repository: Path, *, checkpoints: Sequence[Path] = (), served_as: str = "", say: Say
) -> tuple[Manifest, ...]:
    """Build every model of a catalogue entry. Does nothing where all of it is built from the same weights by the same code.

    `checkpoints`: the user's own, several for an ensemble; `served_as`: a name of one's own. Raises SetupError.
    """
    entry = find(name)
    sources = _sources(entry, home, checkpoints, say)
    stem = served_as or name
    stamp = _stamp(sources)
    models = [(stem if model == name else model, family) for model, family in entry.models]
    kept = [_up_to_date(repository, model, stamp) for model, _ in models]
    if all(kept):
        say(f"{stem} is built")
        return tuple(manifest for manifest in kept if manifest)
    started = time.monotonic()
    say(f"building {stem}: loading PyTorch")
    records, options, versions = _build_engines(entry, models[0][1], sources, repository, stem, say)
    built = []
    for model, family in models:
        manifest = _manifest(entry, model, family, sources, records, {**options, **_own_options(entry, family)})
        manifest = manifest.model_copy(update={"versions": {**versions, STAMP: stamp}})
        manifest.write(repository)
        built.append(manifest)
    say(f"{stem} is built in {time.monotonic() - started:.0f} s")
    return tuple(built)


def _sources(entry: Entry, home: Path, checkpoints: Sequence[Path], say: Say) -> tuple[Checkpoint, ...]:
    if checkpoints:
        if len(checkpoints) > 1 and entry.name != "chexzero":
            raise SetupError(f"{entry.name} takes one checkpoint; an ensemble is chexzero's")
        return tuple(weights.own(path, entry) for path in sorted(checkpoints))
    if entry.weights == "package":
        path = DEMONSTRATION / "weights.safetensors"
        return (Checkpoint(path, weights.digest(path), entry.source, entry.licence),)
    return (weights.pull(entry, home, say),)


def _stamp(sources: Sequence[Checkpoint]) -> str:
    """Equal stamps: the same weights and the same building code make the same engines."""
    found = hashlib.sha256()
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
    entry: Entry, family: str, sources: Sequence[Checkpoint], repository: Path, stem: str, say: Say
) -> tuple[dict[str, tuple[EngineRecord, ...]], dict[str, Any], Mapping[str, str]]:
    from serving.build import export

    records: dict[str, list[EngineRecord]] = {}
    options: dict[str, Any] = {}
    for number, source in enumerate(sources, start=1):
        parts = _open(entry, source)
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
        for part_name, spec in SPECS[family](draft).items():
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


def _open(entry: Entry, source: Checkpoint) -> Parts:
    from serving.build import parts

    state = weights.read(source.path)
    if entry.pool == "adaptive":
        return parts.of_litemedsam(state)
    return parts.of_clip(state, _tokenizer(entry))


def _tokenizer(entry: Entry) -> dict[str, Any]:
    if not entry.demonstration:
        return {"tokenizer": "clip-bpe"}
    words = (DEMONSTRATION / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return {"tokenizer": "words", "vocabulary": words}


def _own_options(entry: Entry, family: str) -> dict[str, Any]:
    """What a procedure adds to what the checkpoint fixes."""
    if family == "litemedsam":
        return {}
    own: dict[str, Any] = {"templates": ["{}"]}
    if family == "chexzero":
        own |= {"negative_templates": ["no {}"], "letterbox": 320}
    if entry.demonstration:
        from serving.demonstration.labels import LABELS

        own["labels"] = list(Labels(tuple(LABELS)).names)
    return own


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
