"""`medserve models build`: checkpoint -> engines in the model repository, compared with PyTorch, with a record beside them."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from serving.build import known, processor, recipes, vocabulary, weights
from serving.build.catalogue import DEMONSTRATION, ENTRIES, Entry, find
from serving.build.recipes import Choices
from serving.build.weights import Checkpoint, Say
from serving.errors import SetupError
from serving.manifest import EngineRecord, Manifest

STAMP, PROCESSOR = "stamp", "processor"


def build(
    name: str,
    home: Path,
    repository: Path,
    *,
    checkpoints: Sequence[Path] = (),
    served_as: str = "",
    version: str = "",
    preprocessing: str = "",
    tokenizer: Path | None = None,
    options: Sequence[str] = (),
    offline: bool = False,
    say: Say,
) -> tuple[Manifest, ...]:
    """Build every model of a catalogue entry. Does nothing where all of it is built from the same weights by the same code.

    `checkpoints`: the user's own, several for an ensemble; `served_as`: a name of one's own; `version`: beside the model of
    that name, as NAME@VERSION; `preprocessing`: one of the entry's; `tokenizer`: the file that tells text's ids, else beside
    the checkpoint; `options`: NAME=VALUE. Raises SetupError.
    """
    choices, sources = prepare(
        name, home, checkpoints, preprocessing, say, tokenizer=tokenizer, options=options, offline=offline
    )
    entry = choices.entry
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
    records, fixed, versions = _build_engines(choices, models[0][1], sources, repository, stem, say)
    built = []
    for model, family in models:
        manifest = _manifest(entry, model, family, sources, records, {**fixed, **recipes.of(family).own(entry)})
        made_for = {STAMP: stamp, PROCESSOR: _processor()}
        manifest = manifest.model_copy(update={"versions": {**versions, **made_for}})
        manifest.write(repository)
        built.append(manifest)
    say(f"{stem} is built in {time.monotonic() - started:.0f} s")
    return tuple(built)


def choices_of(entry: Entry, given: Sequence[str]) -> dict[str, str]:
    """The entry's options, as the user set them. Raises SetupError."""
    chosen = dict(entry.options)
    for text in given:
        name, equals, value = text.partition("=")
        if name not in chosen or not equals:
            known = f"it has: {', '.join(f'{n}={v}' for n, v in entry.options.items())}" if entry.options else "it has none"
            raise SetupError(f"{entry.name} has no option {text}; {known}")
        chosen[name] = value
    return chosen


def _mark(version: str) -> str:
    if version and not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.-]{0,31}", version):
        raise SetupError("a version is 1 to 32 letters, digits, dots and dashes")
    return f"@{version}" if version else ""


def prepare(
    name: str,
    home: Path,
    checkpoints: Sequence[Path],
    preprocessing: str,
    say: Say,
    *,
    tokenizer: Path | None = None,
    options: Sequence[str] = (),
    offline: bool = False,
) -> tuple[Choices, tuple[Checkpoint, ...]]:
    """What a build was asked for, and the checkpoints that it is made of. Raises SetupError."""
    entry = find(name)
    sources = _sources(entry, home, checkpoints, say, offline)
    asked = known.preprocessing(entry, preprocessing, sources)
    return Choices(entry, asked, vocabulary.find(entry, tokenizer, checkpoints), choices_of(entry, options)), sources


def _sources(entry: Entry, home: Path, checkpoints: Sequence[Path], say: Say, offline: bool) -> tuple[Checkpoint, ...]:
    if checkpoints:
        if len(checkpoints) > 1 and not entry.ensemble:
            several = ", ".join(e.name for e in ENTRIES.values() if e.ensemble)
            raise SetupError(f"{entry.name} takes one checkpoint; an ensemble is for: {several}")
        return tuple(weights.own(path, entry) for path in sorted(checkpoints))
    if entry.weights == "package":
        path = DEMONSTRATION / "weights.safetensors"
        return (Checkpoint(path, weights.digest(path), entry.source, entry.licence),)
    if not entry.weights and (found := weights.pulled(entry, home)):
        return (found,)
    return (weights.pull(entry, home, say, no_network=offline),)


def _stamp(sources: Sequence[Checkpoint], choices: Choices) -> str:
    """Equal stamps: the same weights, choices, building code and kind of processor make the same engines."""
    found = hashlib.sha256(json.dumps([choices.preprocessing, dict(choices.options), _processor()]).encode())
    if choices.tokenizer is not None:
        found.update(choices.tokenizer.read_bytes())
    for source in sources:
        found.update(source.sha256.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _processor() -> str:
    """What of this processor decides which precision an engine gets."""
    return ",".join(sorted(processor.able())) or "plain"


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
    from serving.build import deploy, export

    entry, recipe, gate = choices.entry, recipes.of(family), recipes.gate_of(family)
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
        if len(sources) > 1:
            say(f"checkpoint {number} of {len(sources)}")
        own = {**options, **recipe.own(entry)}
        passes = partial(gate, options=own, entry=entry, say=say) if gate else None
        for part, record in deploy.deploy(parts, recipe.specs(draft), repository, str(number), passes, say).items():
            records.setdefault(part, []).append(record)
    return {part: tuple(found) for part, found in records.items()}, options, export.versions()


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
        precision="+".join(sorted({record.precision for found in records.values() for record in found})),
        engines=records,
        options=options,
        built_at=time.strftime("%FT%TZ", time.gmtime()),
    )
