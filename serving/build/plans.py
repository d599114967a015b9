"""The engine cache: ``$MEDSERVE_HOME/engines/<key>/`` holds `model.plan` and `record.json`, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from serving.build.production import Profile
from serving.build.tensorrt import Builder

PLAN, RECORD = "model.plan", "record.json"


@dataclass(frozen=True)
class Key:
    """What makes a plan that plan. `graph`: digest of the ONNX graph with its weights."""

    engine: str
    graph: str
    builder: str
    version: str
    capability: str
    precision: str
    profile: Profile

    def digest(self) -> str:
        """Hex, 32 digits."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:32]

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        shapes = {name: [list(shape) for shape in three] for name, three in self.profile.items()}
        return {**vars(self), "profile": shapes}


def graph_digest(model: onnx.ModelProto) -> str:
    """sha256 of the graph without the exporter's remarks: equal graphs that were exported elsewhere are equal."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for node in bare.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del bare.graph.value_info[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def key(builder: Builder, engine: str, model: onnx.ModelProto, precision: str, profile: Profile) -> Key:
    """The key of a plan that `builder` would make here."""
    return Key(engine, graph_digest(model), builder.label, builder.version, builder.capability(), precision, profile)


def cached(home: Path, wanted: Key, make: Callable[[], bytes], facts: dict[str, Any]) -> tuple[Path, bool]:
    """The folder of a plan, made where it is not there, and whether it was. `facts`: further lines of its record."""
    folder = home / "engines" / wanted.digest()
    held = read(folder)
    if held and held["digest"] == _sha256(folder / PLAN):
        return folder, True
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        plan = make()
        (part / PLAN).write_bytes(plan)
        record = {**wanted.record(), **facts, "digest": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)}
        (part / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder, False


def note(folder: Path, **facts: Any) -> None:
    """Change facts of a plan's record."""
    part = folder / f"{RECORD}.part"
    part.write_text(json.dumps({**read(folder), **facts}, indent=2) + "\n")
    part.replace(folder / RECORD)


def read(folder: Path) -> dict[str, Any]:
    """The record of a plan, or nothing where there is none whole."""
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return found if (folder / PLAN).exists() else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
