"""What was found, by server, and the page's part that is made of it."""

from peer import ABOUT, OURS

from serving.bench.figures import Result, Series, Spread, Table, Times, Verdict, median


class Figures:
    """What was found, by server."""

    def __init__(self):
        self.one, self.rate, self.first, self.agreement, self.failed = {}, {}, {}, {}, {}
        self.paired, self.idle, self.lost = {}, [], {}

    def keep(self, name, one, rate, first, failed):
        """One repeat: seconds of single prompts, prompts a second, seconds of first masks."""
        self.one.setdefault(name, []).append(Times.of(one))
        self.rate.setdefault(name, []).append(rate)
        self.first.setdefault(name, []).append(1000 * median(first))
        self.failed[name] = self.failed.get(name, 0) + failed


def report(figures):
    """The page's part."""
    found = Result("peers", "The peers, side by side")
    limits = {
        "fastapi-tuned-stock": ("K = 8 against the tuned FastAPI with the stock decoder", 1.6),
        "fastapi-naive": ("K = 8 against the naive FastAPI", 20.0),
        "fastapi-tuned-ours": ("K = 8 against the tuned FastAPI with our engines in its process", 0.8),
    }
    for name, (what, limit) in limits.items():
        if name in figures.paired:
            note = f"{median(figures.rate[OURS]):.0f}/s, {median(figures.rate[name]):.1f}/s"
            found.verdicts.append(Verdict(what, median(figures.paired[name]), limit, ">=", "x", 2, note))
    found.verdicts.append(Verdict("failed requests", figures.failed.get(OURS, 0), 0, "<=", "", 0))
    table = Table(
        "Median (range) over the repeats; `ours / it`: prompts a second, measured in turn",
        ("server", "what it is", "K = 1 p50, ms", "K = 1 p95, ms", "K = 8, prompts/s", "ours / it", "first mask p50, ms",
         "mask IoU with ours, worst", "failed"),
    )  # fmt: skip
    names = [name for name in ABOUT if name in figures.rate]
    for name in names:
        one = figures.one[name]
        paired = Spread.of(figures.paired[name]).text(2) if name in figures.paired else ""
        cells = (
            Spread.of([t.p50_ms for t in one]).text(2), Spread.of([t.p95_ms for t in one]).text(2),
            Spread.of(figures.rate[name]).text(1), paired, Spread.of(figures.first[name]).text(0),
            f"{figures.agreement.get(name, 1.0):.4f}", str(figures.failed[name]),
        )  # fmt: skip
        table.add(name, ABOUT[name], *cells)
    found.tables.append(table)
    found.notes += wins(figures, names)
    found.notes += [f"{name} could not be measured: {reason[:300]}" for name, reason in figures.lost.items()]
    if figures.idle:
        found.notes.append(f"The product, idle beside a peer, used {100 * median(figures.idle):.1f} % of one core.")
    rates = {"prompts/s": [median(figures.rate[name]) for name in names]}
    found.series.append(Series("Prompts a second, K = 8", "", "prompts/s", names, rates, kind="bar", log=True))
    clicks = {
        "p50": [median(t.p50_ms for t in figures.one[n]) for n in names],
        "p95": [median(t.p95_ms for t in figures.one[n]) for n in names],
    }
    found.series.append(Series("Click to mask, K = 1", "", "ms", names, clicks, kind="bar", log=True))
    found.raw = {"paired": figures.paired, "rate": figures.rate, "first_ms": figures.first, "idle_cores": figures.idle}
    return found


def wins(figures, names):
    """Where a peer is better than the product, in words."""
    if OURS not in figures.rate:
        return []
    lines = []
    for name in names:
        if name == OURS:
            continue
        better = []
        for what, unit, mine, its in (
            ("K = 1 p50", "ms", median(t.p50_ms for t in figures.one[OURS]), median(t.p50_ms for t in figures.one[name])),
            ("K = 8", "prompts/s", -median(figures.rate[OURS]), -median(figures.rate[name])),
            ("first mask", "ms", median(figures.first[OURS]), median(figures.first[name])),
        ):
            if its < mine:
                better.append(f"{what} ({abs(its):.1f} against {abs(mine):.1f} {unit})")
        if better:
            lines.append(f"**{name} wins**: {', '.join(better)}.")
    return lines or ["No peer was better in any of the three figures."]
