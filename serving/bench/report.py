"""Results -> JSON, a Markdown page and its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.bench.figures import Result, Series, Table, result

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
Page = dict[str, Any]


def save(path: Path, results: Sequence[Result], machine: Mapping[str, str], command: str, options: Mapping[str, Any]) -> None:
    """Write the run as JSON, from which the page can be made again."""
    page: Page = {
        "command": command,
        "machine": dict(machine),
        "options": dict(options),
        "results": [each.json() for each in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(page, indent=1, default=str) + "\n")


def load_page(path: Path) -> tuple[list[Result], Page]:
    """The results of a saved run, and the rest of it."""
    page: Page = json.loads(path.read_text())
    return [result(each) for each in page["results"]], page


def write_page(saved: Path, title: str) -> Path:
    """`<name>.md` and `<name>-<picture>.svg` beside the JSON. Without matplotlib there are no pictures."""
    results, page = load_page(saved)
    pictures = draw(results, saved.with_suffix(""))
    target = saved.with_suffix(".md")
    target.write_text(markdown(results, page, title, pictures))
    return target


def markdown(results: Sequence[Result], page: Page, title: str, pictures: Mapping[tuple[str, str], str]) -> str:
    """The page. `pictures`: (scenario, title of the series) -> file name."""
    lines = [f"# {title}", "", f"`{page['command']}`", ""]
    lines += ["| machine | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in page["machine"].items()), ""]
    lines += [f"{name}: {value}  " for name, value in page["options"].items()] + [""]
    judged = [(each, verdict) for each in results for verdict in each.verdicts]
    missed = sum(not verdict.passed for _, verdict in judged)
    lines += [f"## Judged: {len(judged) - missed} of {len(judged)} pass", ""]
    lines += ["| scenario | what | target | measured | | |", "| --- | --- | --- | --- | --- | --- |"]
    for each, v in judged:
        target, measured = (f"{value:.{v.digits}f} {v.unit}".strip() for value in (v.target, v.measured))
        lines.append(
            f"| {each.name} | {v.what} | {v.side} {target} | {measured} | {'pass' if v.passed else '**MISS**'} | {v.note} |"
        )
    for each in results:
        lines += ["", f"## {each.title}", "", *(f"{note}\n" for note in each.notes)]
        for table in each.tables:
            lines += [*_table(table), ""]
        for series in each.series:
            name = pictures.get((each.name, series.title))
            lines += [f"![{series.title}]({name})", ""] if name else []
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    rows = [table.head, tuple("---" for _ in table.head), *table.rows]
    return [f"**{table.title}**", "", *("| " + " | ".join(row) + " |" for row in rows)]


def draw(results: Sequence[Result], stem: Path) -> dict[tuple[str, str], str]:
    """One SVG a series."""
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "medserve", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    made = {}
    for each in results:
        for number, series in enumerate(each.series):
            path = stem.with_name(f"{stem.name}-{each.name}-{number}.svg")
            _draw(series, path)
            made[each.name, series.title] = path.name
    return made


def _draw(series: Series, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for number, (name, values) in enumerate(series.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        if series.kind == "bar":
            width = 0.8 / len(series.lines)
            places = [n - 0.4 + width * (number + 0.5) for n in range(len(series.x))]
            axes.bar(places, values, width, label=name, color=colour)
        else:
            axes.plot(series.x, values, label=name, color=colour, marker="o" if len(series.x) < 20 else None, markersize=4)
    if series.kind == "bar":
        axes.set_xticks(range(len(series.x)), [str(x) for x in series.x])
    if series.target is not None:
        axes.axhline(series.target, color="#999999", linewidth=0.8, linestyle="--")
    if series.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(series.title)
    axes.set_xlabel(series.x_label)
    axes.set_ylabel(series.y_label)
    if len(series.lines) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
