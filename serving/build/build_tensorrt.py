"""`medserve models build --profile tensorrt`: checkpoint -> ONNX, bfloat16 where the gate passes -> plans in a cache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.build import config, deploy_plans, plans, production, recipes, tensorrt, weights
from serving.build.catalogue import Entry
from serving.build.recipes import Choices
from serving.build.weights import Checkpoint, Say
from serving.engines.engine import EngineSpec
from serving.errors import SetupError
from serving.manifest import Manifest

if TYPE_CHECKING:
    import onnx

    from serving.build.gate_bf16 import Model
    from serving.build.parts import Parts

BF16, PROJECTIONS, F32 = "bf16", "bf16-projections", "f32"
PRECISIONS = (BF16, PROJECTIONS, F32)
"""Lowest first: the first whose gate passes is built, engine by engine, where none was asked for."""

MESSAGE_BYTES = (1 << 31) - 1
"""The most of a protobuf message, which is what the gate and the parser are given: ViT-H's graph at float32 is above it."""


@dataclass(frozen=True)
class Plan:
    """One engine's plan in the cache, its record (`plans.Key` and what was found), and whether it was there before."""

    folder: Path
    record: dict[str, Any]
    reused: bool


def build_plans(
    choices: Choices,
    sources: Sequence[Checkpoint],
    home: Path,
    repository: Path,
    *,
    stem: str,
    precision: str = "",
    batch: int = 0,
    say: Say,
) -> tuple[Plan, ...]:
    """A plan for each engine of an entry's checkpoints. `batch`: the most of a batch, where another than the spec's.

    Plans of the data-centre package are deployed, once all of them are there and passed their gate.

    Raises SetupError: no TensorRT, a precision asked for that fails its gate, a graph that does not build.
    """
    if precision and precision not in PRECISIONS:
        raise SetupError(f"precision {precision} is not known for TensorRT: one of {', '.join(PRECISIONS)}")
    from serving.build.gate_bf16 import Model

    builder = tensorrt.installed()
    builder.capability()
    say(f"building with {builder.label} ({builder.version})")
    made: list[Plan] = []
    for version, source in enumerate(sources, start=1):
        recipe = recipes.of(choices.entry.models[0][1])
        parts = recipe.parts(weights.read(source.path), choices)
        specs = recipe.specs(_draft(choices.entry, stem, source, parts.options))
        graphs = dict(exported(parts, say))
        options = {**parts.options, **recipe.own(choices.entry)}
        judged = Model(graphs, parts.samples, options, choices.entry.demonstration)
        lowered: dict[str, onnx.ModelProto] = {}
        for part, spec in specs.items():
            chosen, gate = _lower(part, judged, lowered, precision, spec, say)
            facts = {"model": stem, "part": part, "model_version": str(version), "checkpoint": source.sha256, "gate": gate}
            try:
                made.append(_plan(builder, spec, lowered.get(part, graphs[part]), chosen, batch, home, facts, say))
            except SetupError as exc:
                if precision or chosen == F32:
                    raise
                say(f"{exc}: it stays {F32}")
                lowered.pop(part, None)
                facts["gate"] = {"failed": {chosen: {**gate, "built": False}}}
                made.append(_plan(builder, spec, graphs[part], F32, batch, home, facts, say))
            config.write(repository / spec.name, spec, parts.parts[part].backend)
    if builder.name == deploy_plans.DATA_CENTRE:
        deploy_plans.deploy([plan.folder for plan in made], choices.entry, sources, parts.options, stem, repository)
        made = [replace(plan, record=plans.read(plan.folder)) for plan in made]
    return tuple(made)


def _draft(entry: Entry, stem: str, source: Checkpoint, options: dict[str, Any]) -> Manifest:
    return Manifest(
        model=stem,
        family=entry.models[0][1],
        pool=entry.pool,
        digest=source.sha256,
        source="",
        licence="",
        engines={},
        options=options,
    )


def exported(parts: Parts, say: Say) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Each part in turn, as ONNX at float32. Raises SetupError: a graph above what a message holds."""
    import onnx

    from serving.build import export

    for name, part in parts.parts.items():
        say(f"exporting {name}")
        with tempfile.TemporaryDirectory(prefix="medserve-") as work:
            path = Path(work) / "model.onnx"
            export.to_onnx(part, path)
            size = sum(file.stat().st_size for file in Path(work).iterdir())
            if size > MESSAGE_BYTES:
                raise SetupError(f"{name} has {size / 1e9:.1f} GB at float32: graphs above 2 GiB are not built with TensorRT")
            yield name, onnx.load(path)


def _lower(
    part: str,
    model: Model,
    lowered: dict[str, onnx.ModelProto],
    precision: str,
    spec: EngineSpec,
    say: Say,
) -> tuple[str, dict[str, Any]]:
    """The part's precision and its gate's record; puts its bfloat16 graph into `lowered` where that is what is built."""
    from serving.build import bf16, gate_bf16

    failed: dict[str, Any] = {}
    for level in [precision] if precision else PRECISIONS:
        if level == F32:
            break
        candidate = bf16.to_bf16(model.graphs[part], projections=level == PROJECTIONS)
        verdict = gate_bf16.judge(part, model, {**lowered, part: candidate})
        found = {**verdict.record(), "where": "emulated on the CPU"}
        if verdict.passed:
            lowered[part] = candidate
            say(f"{spec.name} passes the gate at {level}, emulated: {verdict.numbers}")
            return level, {**found, "failed": failed}
        say(f"{spec.name} fails the gate at {level}: {verdict.numbers}")
        failed[level] = found
    if precision and precision != F32:
        raise SetupError(f"{spec.name} fails the precision gate at {precision}: build it with --precision {F32}, or with none")
    return F32, {"failed": failed} if failed else {}


def _plan(
    builder: tensorrt.Builder,
    spec: EngineSpec,
    model: onnx.ModelProto,
    precision: str,
    batch: int,
    home: Path,
    facts: dict[str, Any],
    say: Say,
) -> Plan:
    shapes = production.profile(spec, batch)
    key = plans.key(builder, spec.name, model, precision, shapes)
    facts = {**facts, "executed": False, "deployed": False}
    folder, reused = plans.cached(home, key, lambda: tensorrt.build(builder, model.SerializeToString(), spec, shapes), facts)
    record = plans.read(folder)
    say(f"{spec.name} {precision} is {'in' if reused else 'put into'} the engine cache: {record['bytes'] >> 20} MiB")
    return Plan(folder, record, reused)
