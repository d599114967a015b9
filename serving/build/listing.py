"""`medserve models list`: the catalogue beside what is in the store and in the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from serving.build import weights
from serving.build.catalogue import ENTRIES, Entry
from serving.manifest import Manifest


def lines(repository: Path, home: Path) -> Iterator[str]:
    """A paragraph an entry, and one for what was built under names of the user's own."""
    built = {path.stem: _read(path) for path in sorted(repository.glob("*.json"))}
    for entry in ENTRIES.values():
        yield f"{entry.name}  ({entry.pool}, {entry.licence}{', demonstration' if entry.demonstration else ''})"
        yield f"  source   {entry.source}"
        yield f"  weights  {_weights(entry, home)}"
        for model, _ in entry.models:
            yield from _built(model, built.pop(model)) if model in built else (f"  {model} is not built",)
    for model, manifest in built.items():
        yield f"{model}  ({f'{manifest.pool}, {manifest.licence}, {manifest.source}' if manifest else 'unknown'})"
        yield from _built(model, manifest)


def _read(path: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json(path.read_text())
    except ValidationError:
        return None


def _weights(entry: Entry, home: Path) -> str:
    if entry.weights == "package":
        return "shipped with this package"
    if not isinstance(entry.weights, str):
        kept = home / "weights" / entry.weights.sha256 / entry.weights.file
        return f"{entry.weights}, {'pulled' if kept.exists() else 'not pulled'}, sha256 {entry.weights.sha256[:12]}"
    found = weights.pulled(entry, home)
    if found is None:
        return "bring your own: build it with --checkpoint FILE, or pull --from SOURCE"
    return f"{found.source}, pulled, sha256 {found.sha256[:12]}"


def _built(model: str, manifest: Manifest | None) -> Iterator[str]:
    if manifest is None:
        yield f"  {model}: its record cannot be read: build it again"
        return
    yield f"  {model} is built from the weights {manifest.digest[:12]}"
    for part, records in manifest.engines.items():
        several = f" and {len(records) - 1} more" if len(records) > 1 else ""
        yield f"    {part}  {records[0].precision}  sha256 {records[0].digest[:12]}{several}"
