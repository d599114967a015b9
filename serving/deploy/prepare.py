"""The init container of a pod with a Triton: models built for this node's processor, this pod's repository, the Features arena.

    python -m serving.deploy.prepare --cache /models --release 0.1.0 --repository /run/medserve/repository litemedsam

`--cache` is a volume that outlives the pod and is shared with others. It holds one folder a release and processor, as an
engine fits only what it was built for, and `published/`, the records that the router reads. The pod's repository links to what
this pod serves. Nothing is built twice: who comes second waits for the first and finds its work.
"""

from __future__ import annotations

import argparse
import fcntl
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving import served
from serving.build.build import build
from serving.embeddings import arena
from serving.errors import SetupError
from serving.manifest import Manifest
from serving.settings import Settings, load

PUBLISHED = "published"
GPU_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m serving.deploy.prepare")
    parser.add_argument("--cache", type=Path, required=True, help="the volume of built models")
    parser.add_argument("--release", required=True, help="the image's version: other code makes other engines")
    parser.add_argument("--repository", type=Path, required=True, help="this pod's model repository, made anew")
    parser.add_argument(
        "models", nargs="+", help="names of `medserve models list`; NAME=FILE,FILE or NAME@VERSION=FILE of your own checkpoints"
    )
    chosen = parser.parse_args(arguments)
    try:
        prepare(load(), chosen.cache, chosen.release, chosen.repository, chosen.models)
    except SetupError as exc:
        _say(str(exc))
        raise SystemExit(1) from exc


def prepare(settings: Settings, cache: Path, release: str, repository: Path, models: Sequence[str]) -> None:
    """Everything, in order. Raises SetupError."""
    folder = cache / key(release, processor())
    with _alone(folder):
        manifests = [manifest for model in models for manifest in _built(model, settings.home, folder)]
    link(manifests, folder, repository)
    if settings.features.region:
        own = settings.repository.model_copy(update={"path": repository, "models": ()})
        slot_bytes = served.slot_bytes(settings.model_copy(update={"repository": own}))
        arena.create("features", settings.features.budget_bytes, slot_bytes, name=settings.features.region)
    (cache / PUBLISHED).mkdir(exist_ok=True)
    for manifest in manifests:
        manifest.write(cache / PUBLISHED)
    _say(f"{folder.name}: {', '.join(manifest.model for manifest in manifests)}")


def _built(model: str, home: Path, folder: Path) -> tuple[Manifest, ...]:
    """NAME, NAME=FILE,FILE or NAME@VERSION=FILE; a version is a model beside NAME."""
    said, _, files = model.partition("=")
    name, _, version = said.partition("@")
    checkpoints = [Path(file) for file in files.split(",") if file]
    return build(name, home, folder, checkpoints=checkpoints, version=version, say=_say)


def key(release: str, processor: str) -> str:
    """The folder of one release on one kind of processor."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{release}-{processor}").strip("-").lower()


def processor() -> str:
    """What engines are built for: the GPU and its driver, or the CPU's architecture."""
    try:
        found = subprocess.run(GPU_QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return f"cpu-{platform.machine()}"
    return found.splitlines()[0]


def link(manifests: Sequence[Manifest], folder: Path, repository: Path) -> None:
    """Make a repository of the engines of these models alone: a Triton that loads all it finds loads no other pool's."""
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir(parents=True)
    for manifest in manifests:
        for name in {record.name for records in manifest.engines.values() for record in records}:
            if not (repository / name).exists():
                (repository / name).symlink_to(folder / name)
        manifest.write(repository)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One builder a folder, on whatever node; the kernel drops the lock of one that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"medserve: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
