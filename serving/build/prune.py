"""`medserve models prune`: what lies in the repository and in the store that no record names."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.build import plans
from serving.manifest import Manifest, read_all

ABANDONED_S = 3600.0
"""A half-made thing that nobody has touched for so long is nobody's; a younger one may be under way."""


@dataclass(frozen=True)
class Waste:
    """A folder or file to be removed, why, and how large it is."""

    path: Path
    why: str
    nbytes: int


def find(repository: Path, home: Path) -> tuple[Waste, ...]:
    """What may go. Nothing that a record names is ever among it. Raises SetupError where a record cannot be read."""
    manifests = read_all(repository) if any(repository.glob("*.json")) else ()
    found = (*_versions(repository, manifests), *_weights(home / "weights", manifests), *_plans(home / "engines"))
    return tuple(Waste(path, why, _size(path)) for path, why in found)


def remove(waste: Waste) -> None:
    """Remove one of them."""
    if waste.path.is_dir():
        shutil.rmtree(waste.path)
    else:
        waste.path.unlink()


def _versions(repository: Path, manifests: tuple[Manifest, ...]) -> Iterator[tuple[Path, str]]:
    named = {(e.name, e.version) for m in manifests for records in m.engines.values() for e in records}
    for path in sorted(repository.glob("*/[0-9]*")):
        if path.is_dir() and path.name.isdigit() and (path.parent.name, path.name) not in named:
            yield path, "an engine's version that no record names"
    for path in sorted(repository.glob(".build-*")):
        if _abandoned(path):
            yield path, "left by a build that was interrupted"


def _weights(store: Path, manifests: tuple[Manifest, ...]) -> Iterator[tuple[Path, str]]:
    """Weights of ensembles are their owner's files and never lie here."""
    named = {m.digest for m in manifests}
    for path in sorted(store.glob("*")):
        if len(path.name) == 64 and path.is_dir() and path.name not in named:
            yield path, "weights that no record names"
    for path in sorted((*store.glob(".part-*"), *store.glob(".downloads/*"))):
        if _abandoned(path):
            yield path, "left by a pull that was interrupted"


def _plans(cache: Path) -> Iterator[tuple[Path, str]]:
    """Of the plans of one engine for one builder and card the newest stays."""
    newest: dict[tuple[str, ...], Path] = {}
    for path in sorted(cache.glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime, reverse=True):
        record = plans.read(path)
        same = tuple(str(record.get(key, "")) for key in ("engine", "model_version", "builder", "capability"))
        if not record:
            yield path, "a plan without its record"
        elif newest.setdefault(same, path) is not path:
            yield path, "a plan that a newer one replaced"
    for path in sorted(cache.glob(".part-*")):
        if _abandoned(path):
            yield path, "left by a build that was interrupted"


def _abandoned(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > ABANDONED_S


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
