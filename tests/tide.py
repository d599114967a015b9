"""What a run of `autoscaling.py` says: its stretches, by the users there were and the replicas, and what users got in each."""

from collections import Counter
from dataclasses import dataclass

from serving.bench.figures import Result, Series, Verdict, percentile

WARM_S = 10
"""From the start: every first image is new."""
SETTLE_S = 25
"""From a change of the replicas: images whose home is another node now are sent and encoded again."""
RECOVERED = 2.0
"""Wanted: p95 with all users and all replicas is at most so many times p95 with few users and one replica."""
BIN_S = 4
NO_CALLS = ("refused", "again")


@dataclass(frozen=True)
class Call:
    """A call that has ended: when, seconds of the run; how many users there were; locust's type and name."""

    ended_s: float
    users: int
    type: str
    name: str
    ms: float
    failure: str | None

    @property
    def asked_s(self):
        """When its user asked."""
        return self.ended_s - self.ms / 1000

    @property
    def is_prompt(self):
        return self.type not in NO_CALLS and "prompt" in self.name


@dataclass(frozen=True)
class Look:
    """What there was at a moment: replicas, core-seconds that the machine was busy since its start, and of each node how many
    periods it has had and in how many of them it used up its limit."""

    at_s: float
    replicas: int
    busy_s: float
    limited: list[tuple[int, int]]


@dataclass(frozen=True)
class Stretch:
    """A part of the run, from second to second."""

    name: str
    since_s: float
    until_s: float

    def of(self, calls):
        """The calls that were asked in it."""
        return [call for call in calls if self.since_s <= call.asked_s < self.until_s]


def stretches(looks, calls):
    """In the order of time; those that did not come to be are left out."""
    fewest, all_users = (pick(call.users for call in calls if call.asked_s > WARM_S / 2) for pick in (min, max))
    most, least, end = max(look.replicas for look in looks), looks[0].replicas, max(call.ended_s for call in calls)

    def first(moments, default=end):
        return min(moments, default=default)

    rise = first(call.asked_s for call in calls if call.users > fewest and call.asked_s > WARM_S / 2)
    full = first(call.ended_s for call in calls if call.users == all_users)
    fall = first(call.ended_s for call in calls if call.users < all_users and call.ended_s > full)
    up = first(look.at_s for look in looks if look.replicas == most > least)
    gone = first(look.at_s for look in looks if look.replicas == least and look.at_s > up)
    edges = [
        (f"few users, {least} replica", WARM_S, rise),
        (f"all users, fewer than {most} replicas", rise, up),
        ("images move to their new homes", up, min(up + SETTLE_S, fall)),
        (f"all users, {most} replicas", up + SETTLE_S, fall),
        ("few users, replicas not gone yet", fall, gone),
        ("images move back", gone, min(gone + SETTLE_S, end)),
        (f"few users, {least} replica again", gone + SETTLE_S, end),
    ]
    return [Stretch(name, since, until) for name, since, until in edges if until - since >= 1]


def row(stretch, looks, calls):
    """A line of the table."""
    mine = stretch.of(calls)
    seconds = stretch.until_s - stretch.since_s
    told = Counter(call.type if call.type in NO_CALLS else "failed" if call.failure else "call" for call in mine)
    prompts, images = (
        [call.ms for call in mine if call.type not in NO_CALLS and not call.failure and call.is_prompt is which]
        for which in (True, False)
    )
    inside = [look for look in looks if stretch.since_s - 1 <= look.at_s <= stretch.until_s + 1]
    first, last = inside[0], inside[-1]
    passed_s = max(last.at_s - first.at_s, 0.1)
    limits = [10 * (after - before) for (_, before), (_, after) in zip(first.limited, last.limited, strict=False)]
    cells = [stretch.name, f"{stretch.since_s:.0f} to {stretch.until_s:.0f}", f"{told['call'] / seconds:.1f}"]
    cells += [told["failed"], told["refused"], told["again"]]
    cells += [f"{percentile(prompts, q):.0f}" if prompts else "-" for q in (50, 95)]
    cells += [f"{percentile(images, 50):.0f} ({len(images)})" if images else "-"]
    cells += [" ".join(f"{min(each / passed_s, 100):.0f}" for each in limits)]
    cells += [f"{(last.busy_s - first.busy_s) / passed_s:.2f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = (
    "| stretch | seconds | calls a second | failed | refused | image sent again | prompt p50 | p95 | image opened, p50 (of) "
    "| nodes at their limit, % of the time | cores busy |"
)


def table(looks, calls):
    """A line a stretch."""
    found = stretches(looks, calls)
    return "\n".join([HEAD, "|" + " --- |" * 11, *(row(stretch, looks, calls) for stretch in found)])


def verdicts(looks, calls):
    """What is wanted, and what came of it."""
    p95 = {
        s.name: percentile([c.ms for c in s.of(calls) if c.is_prompt and not c.failure], 95) for s in stretches(looks, calls)
    }
    most, least = max(look.replicas for look in looks), looks[0].replicas
    before, after = p95.get(f"few users, {least} replica"), p95.get(f"all users, {most} replicas")
    ratio = after / before if before and after else float("nan")
    failed = sum(call.failure is not None for call in calls)
    return [
        Verdict("most replicas", most, least + 1, ">=", digits=0),
        Verdict("replicas at the end", looks[-1].replicas, least, "<=", digits=0),
        Verdict("prompt p95 with all users and all replicas, of that with few users before", ratio, RECOVERED, "<=", "x"),
        Verdict("calls without an answer", failed, 0, "<=", digits=0),
    ]


def pictures(looks, calls):
    """For `serving.bench.report.draw`: replicas and users, and the prompts' latencies, over the run."""
    starts = range(0, int(max(call.ended_s for call in calls)), BIN_S)
    bins = [Stretch("", start, start + BIN_S) for start in starts]
    prompts = [[call.ms for call in each.of(calls) if call.is_prompt and not call.failure] for each in bins]
    users = [max((call.users for call in each.of(calls)), default=0) / 10 for each in bins]
    replicas = [[look.replicas for look in looks if look.at_s <= each.until_s][-1] for each in bins]
    x = [start + BIN_S / 2 for start in starts]
    return Result(
        "ramp",
        "Autoscaling under a ramp",
        series=[
            Series("Replicas, and users in tens", "second", "", x, {"replicas": replicas, "users / 10": users}),
            Series(
                "Prompts, by when they were asked",
                "second",
                "milliseconds",
                x,
                {f"p{q}": [percentile(each, q) for each in prompts] for q in (50, 95)},
                log=True,
            ),
        ],
    )
