"""`medserve models list`: the catalogue beside what is in the store and in the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from rich.table import Table

from serving.build import weights
from serving.build.catalogue import ENTRIES, Entry
from serving.manifest import Manifest


def table(repository: Path, home: Path) -> Table:
    """One row an entry, and one for every model that was built under a name of the user's own."""
    made = Table("name", "served as", "pool", "licence", "weights", "pulled", "built")
    built = {path.stem: _read(path) for path in sorted(repository.glob("*.json"))}
    for entry in ENTRIES.values():
        served = [model for model, _ in entry.models]
        made.add_row(
            entry.name,
            "\n".join(served),
            entry.pool,
            entry.licence,
            _source(entry),
            _pulled(entry, home),
            "\n".join(_built(built.pop(model, None)) if model in built else "no" for model in served),
        )
    for model, manifest in built.items():
        source, licence = (manifest.source, manifest.licence) if manifest else ("", "")
        made.add_row("", model, manifest.pool if manifest else "", licence, source, "", _built(manifest))
    return made


def _read(path: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json(path.read_text())
    except ValidationError:
        return None


def _source(entry: Entry) -> str:
    told = f"{entry.source} (demonstration)" if entry.demonstration else entry.source
    return told if entry.weights else f"{told}; bring your own with --checkpoint"


def _pulled(entry: Entry, home: Path) -> str:
    if entry.weights == "package":
        return "shipped"
    if not isinstance(entry.weights, str):
        kept = home / "weights" / entry.weights.sha256 / entry.weights.file
        return entry.weights.sha256[:12] if kept.exists() else "no"
    found = weights.pulled(entry, home)
    return found.sha256[:12] if found else "no"


def _built(manifest: Manifest | None) -> str:
    """``f32, weights 79d8c9dca6db: image_encoder f2cd5a22e960 f32, …``."""
    if manifest is None:
        return "its record cannot be read: build it again"
    return f"weights {manifest.digest[:12]}\n" + "\n".join(_engines(manifest))


def _engines(manifest: Manifest) -> Iterator[str]:
    for part, records in manifest.engines.items():
        several = f" × {len(records)}" if len(records) > 1 else ""
        yield f"{part}{several} {records[0].precision} {records[0].digest[:12]}"
