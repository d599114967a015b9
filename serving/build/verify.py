"""`medserve models verify NAME`: is what lies in the repository what was built, and does a real Triton answer as it should?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from serving.build import plans, recipes, weights
from serving.build.catalogue import DEMONSTRATION, ENTRIES, Entry
from serving.build.checks import Check, Target
from serving.build.recipes import Choices
from serving.build.warm import warm
from serving.build.weights import Say
from serving.errors import SetupError
from serving.families.registry import FAMILIES
from serving.manifest import Manifest, read_all
from serving.settings import Settings


def verify(name: str, settings: Settings, say: Say, checkpoint: Path | None = None) -> Iterator[Check]:
    """Every check in turn. `checkpoint`: of a model that was built from the user's own. Raises SetupError: no such record."""
    manifest = read_all(settings.repository.path, (name,))[0]
    target = Target(manifest, dict(FAMILIES[manifest.family].specs(manifest)), settings.repository.path)
    yield from artefacts(target)
    yield from gates(target)
    if any(record.features == "region" for _, _, record, _ in target.engines()):
        yield Check("none", "parity and a warm request", "these are plans for a GPU: send one to the server there")
    else:
        yield from parity(target, settings.home, checkpoint, say)
        yield from warm(target, settings)
    yield from cached_plans(name, settings.home)


def artefacts(target: Target) -> Iterator[Check]:
    """Each engine's file against its recorded digest."""
    for _, _, record, folder in target.engines():
        what = f"artefact {record.name}/{record.version}"
        found = {path.name: weights.digest(path) for path in sorted(folder.glob("model.*"))}
        if record.digest in found.values():
            yield Check("ok", what, f"sha256 {record.digest[:12]}")
        else:
            have = ", ".join(f"{name} {digest[:12]}" for name, digest in found.items()) or "nothing is there"
            yield Check("fail", what, f"recorded sha256 {record.digest[:12]}, found {have}: build it again")


def gates(target: Target) -> Iterator[Check]:
    """What the precision gate said when each engine was built."""
    for _, _, record, _ in target.engines():
        what = f"gate {record.name}/{record.version}"
        numbers = ", ".join(f"{k} {v}" for k, v in record.gate.items() if isinstance(v, int | float) and k != "passed")
        if record.gate.get("passed"):
            yield Check("ok", what, f"{record.precision}: {numbers or 'by parity alone'}")
        elif record.precision != "f32" or record.gate.get("passed") is False:
            yield Check("fail", what, f"{record.precision} did not pass: {numbers or 'nothing is recorded'}")
        else:
            yield Check("ok", what, "f32, which needs none")


def parity(target: Target, home: Path, checkpoint: Path | None, say: Say) -> Iterator[Check]:
    """Each float32 graph against PyTorch again, where the checkpoint is at hand, and the numbers that were recorded."""
    from serving.build import export

    for _, _, record, _ in target.engines():
        bad = [k for k, v in _relative(record.parity).items() if not v <= export.TOLERANCE]
        worst = max(_relative(record.parity).values(), default=0.0)
        yield Check("fail" if bad else "ok", f"parity recorded {record.name}/{record.version}", f"{worst:.1e} of scale")
    found = _checkpoint(target.manifest, home, checkpoint)
    if isinstance(found, str):
        yield Check("none", "parity recomputed", found)
        return
    say("comparing with PyTorch again")
    entry = entry_of(target.manifest)
    made = recipes.of(target.manifest.family).parts(weights.read(found), Choices(entry, _preprocessing(target.manifest, entry)))
    for part, _, record, folder in target.engines():
        exact = made.parts[part] if record.precision == "f32" else replace(made.parts[part], backend="onnxruntime")
        what = f"parity recomputed {record.name}/{record.version}"
        try:
            numbers = _relative(export.compare(exact, folder, made.samples[part], made.answers.get(part)))
            yield Check("ok", what, f"{max(numbers.values()):.1e} of scale")
        except (SetupError, RuntimeError) as exc:
            yield Check("fail", what, str(exc).splitlines()[0][:200])


def cached_plans(name: str, home: Path) -> Iterator[Check]:
    """TensorRT plans of the model in the engine cache: whole, gated, and whether ever run."""
    for path in sorted((home / "engines").glob(f"*/{plans.RECORD}")):
        record = plans.read(path.parent)
        if record.get("model") != name:
            continue
        what = f"plan {record['engine']} ({record['builder']}, {record['precision']})"
        whole = weights.digest(path.parent / plans.PLAN) == record["digest"]
        gate = record.get("gate", {})
        passed = record["precision"] == "f32" or gate.get("passed", False)
        state: Literal["ok", "fail"] = "ok" if whole and passed else "fail"
        yield Check(state, what, f"{'whole' if whole else 'damaged'}, gate {gate.get('where', 'not needed')}")
        if not record.get("executed"):
            yield Check("none", what, "not run: that needs a GPU")


def _relative(numbers: dict[str, float]) -> dict[str, float]:
    """Largest difference by output, as a part of its scale."""
    names = [key.removesuffix("_max_abs") for key in numbers if key.endswith("_max_abs")]
    return {name: numbers[f"{name}_max_abs"] / max(numbers[f"{name}_scale"], 1e-30) for name in names}


def entry_of(manifest: Manifest) -> Entry:
    """The entry that a model was built of. Raises SetupError."""
    named = [e for e in ENTRIES.values() if any(model == manifest.model for model, _ in e.models)]
    alike = [e for e in ENTRIES.values() if any(family == manifest.family for _, family in e.models) and not e.demonstration]
    if found := named or alike:
        return found[0]
    raise SetupError(f"no entry of the catalogue has the family {manifest.family}")


def _preprocessing(manifest: Manifest, entry: Entry) -> str:
    """As it was built with, where the record says so."""
    told = str(manifest.options.get("preprocessing", ""))
    return told if told in entry.preprocessings else (entry.preprocessings or ("",))[0]


def _checkpoint(manifest: Manifest, home: Path, given: Path | None) -> Path | str:
    """The checkpoint's file, or why there is none."""
    if any(len(records) > 1 for records in manifest.engines.values()):
        return "an ensemble is compared at its build only"
    known: list[Callable[[], Path | None]] = [
        lambda: given,
        lambda: next((p for p in (home / "weights" / manifest.digest).glob("*") if p.name != "record.json"), None),
        lambda: _shipped(manifest),
    ]
    path = next((found for one in known if (found := one()) is not None), None)
    if path is None:
        return "its checkpoint is not in the store: give it with --checkpoint FILE"
    if weights.digest(path) != manifest.digest:
        return f"{path.name} is another checkpoint than it was built of"
    return path


def _shipped(manifest: Manifest) -> Path | None:
    return DEMONSTRATION / "weights.safetensors" if manifest.demonstration else None
