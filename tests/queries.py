"""The dashboards and the rules as tests read them: their queries, and the metrics that a query names."""

import json
import re
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "observability"
SYNTHETIC = {"up"}
"""What Prometheus itself adds to each scrape."""
WORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right", "offset", "bool"}


def rules():
    """Every recording rule and alert, as dicts."""
    files = sorted((FOLDER / "rules").glob("*.yaml"))
    return [rule for path in files for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts():
    """Name -> its rules: a burn rate has one for each pair of windows."""
    found = {}
    for rule in rules():
        if "alert" in rule:
            found.setdefault(rule["alert"], []).append(rule)
    return found


def recorded():
    """The names that the rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboards():
    """File name -> the dashboard."""
    return {path.name: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}


def queries():
    """Where -> a query, of every panel and rule."""
    found = {f"rule {n}: {rule.get('alert') or rule.get('record')}": rule["expr"] for n, rule in enumerate(rules())}
    for name, board in dashboards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                found[f"{name}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


def metrics_of(query):
    """The names of metrics in a query."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", query)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)) - WORDS


def every_metric():
    """Metric -> where it is named, but for recorded and synthetic ones."""
    found = {}
    for where, query in queries().items():
        for name in metrics_of(query) - recorded() - SYNTHETIC:
            found.setdefault(name, []).append(where)
    return found
