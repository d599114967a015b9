"""The record of a built model: `model_repository/<model>.json`, written by build, read by the pools. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.domain.answer import ModelInfo
from serving.errors import SetupError


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineRecord(_Record):
    """One engine of a model: its folder in the repository and its version, the artefact's sha256, how close it came.

    `parity`: against the PyTorch module on real images, e.g. ``{"max_abs": 1.2e-6, "scale": 3.4}``. `features`: how the
    engine is told of Features, by the name of a slot or as tensors in the registered region (`triton_engine`). `gate`: what
    the precision gate measured, e.g. ``{"kind": "mask_iou", "mean": 0.9934, "min": 0.96, "prompts": 120, "passed": true}``.
    """

    name: str
    version: str = "1"
    digest: str
    precision: str = "f32"
    parity: dict[str, float] = {}
    gate: dict[str, Any] = {}
    features: Literal["slot", "region"] = "slot"


class Manifest(_Record):
    """One served model.

    `family`: key of the family registry. `pool`: class of the taxonomy. `digest`: sha256 of the checkpoint.
    `engines`: part -> records (several where an ensemble has one version a checkpoint). `options`: what the family
    needs to know of this checkpoint (sizes, tokenizer, templates), JSON values. `versions`: of the libraries used.
    """

    model: str
    family: str
    pool: str
    digest: str
    source: str
    licence: str
    demonstration: bool = False
    precision: str = "f32"
    engines: dict[str, tuple[EngineRecord, ...]]
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}
    built_at: str = ""

    def info(self) -> ModelInfo:
        """What an answer says of the model."""
        digests = {f"{e.name}/{e.version}": e.digest for parts in self.engines.values() for e in parts}
        return ModelInfo(self.model, self.family, self.pool, self.digest, digests, self.precision, self.demonstration)

    def gates(self) -> dict[str, dict[str, Any]]:
        """ "engine/version" -> its precision and what its gate said."""
        records = (record for parts in self.engines.values() for record in parts)
        return {f"{each.name}/{each.version}": {"precision": each.precision, **each.gate} for each in records}

    def write(self, repository: Path) -> Path:
        """Write `<model>.json` whole or not at all."""
        path = repository / f"{self.model}.json"
        part = path.with_suffix(".json.part")
        part.write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n")
        part.replace(path)
        return path


def engine_name(model: str, part: str) -> str:
    """The engine's folder in the repository."""
    return f"{model.replace('-', '_').replace('@', '_v').replace('.', '_')}_{part}"


def read_all(repository: Path, only: tuple[str, ...] = ()) -> tuple[Manifest, ...]:
    """The built models of a repository, by name. Raises SetupError where one is missing or unreadable."""
    found: dict[str, Manifest] = {}
    for path in sorted(repository.glob("*.json")):
        try:
            manifest = Manifest.model_validate_json(path.read_text())
        except (OSError, ValidationError) as exc:
            raise SetupError(
                f"the record of model {path.stem} cannot be read: build it again with `medserve models build`"
            ) from exc
        found[manifest.model] = manifest
    missing = [name for name in only if name not in found]
    if missing:
        raise SetupError(f"model {missing[0]} is not built: run `medserve models build {missing[0]}`")
    chosen = tuple(found[name] for name in (only or sorted(found)))
    if not chosen:
        raise SetupError("no model is built: run `medserve models build litemedsam`")
    return chosen
