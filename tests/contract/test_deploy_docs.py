"""The pages: each value of the chart that one names, or sets by `--set`, is in the schema, and each link leads somewhere."""

import functools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "deploy" / "helm" / "medserve" / "values.schema.json").read_text())
PAGES = ("deploy.md", "operations.md", "sizing.md", "runbook.md", "volumes.md")
SET = re.compile(r"--set(?:-string|-json)? ([\w.]+)=")
NAME = re.compile(r"`([a-z]\w*(?:\.[A-Za-z]\w*)+)(?::[^`]*)?`")
BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
SETTINGS = "settings"
SHARED = ("gpu",)
"""Words that are a chart's value and something else's name on a page."""


@functools.cache
def text(page):
    return (ROOT / "docs" / page).read_text()


def known(tree, path):
    """Whether the schema has this path. `NAME` stands for any one."""
    if "$ref" in tree:
        tree = SCHEMA["$defs"][tree["$ref"].rsplit("/", 1)[1]]
    if not path:
        return True
    branches = [*tree.get("anyOf", ()), *tree.get("allOf", ()), *tree.get("oneOf", ())]
    if any(known(branch, path) for branch in branches):
        return True
    head, *rest = path
    if head == "NAME":
        return any(known(each, rest) for each in tree.get("properties", {}).values())
    if head in tree.get("properties", {}):
        return known(tree["properties"][head], rest)
    more = tree.get("additionalProperties")
    return more is True or (isinstance(more, dict) and known(more, rest))


def names(page):
    """Dotted names in code whose first word is one of the chart's, the server's own settings among them as they are."""
    own = set(SCHEMA["properties"]) - set(SHARED)
    found = set(SET.findall(text(page)))
    for name in NAME.findall(text(page)):
        if name.split(".")[0] in own:
            found.add(name)
    return found


def in_settings_or_chart(name):
    """Pages on the server say `volumes.spool`, which in the chart is below `settings`, or is the chart's to decide."""
    path = name.split(".")
    return known(SCHEMA, path) or known(SCHEMA, [SETTINGS, *path])


@pytest.mark.parametrize("page", PAGES)
def test_every_value_that_a_page_names_exists(page):
    assert {name for name in names(page) if not in_settings_or_chart(name)} == set()


def test_the_pages_name_values():
    found = names("deploy.md")
    assert {"loadtest.enabled", "pools.NAME.pods.min", "volumeJobs.existingClaim"} <= found
    assert not in_settings_or_chart("pools.adaptive.pod.min")
    assert not in_settings_or_chart("gateway.grpcHostnames")


@pytest.mark.parametrize("number", range(len(BLOCK.findall(text("deploy.md")))))
def test_the_values_that_deploy_writes_out_are_taken(number):
    jsonschema.validate(yaml.safe_load(BLOCK.findall(text("deploy.md"))[number]), SCHEMA)


def test_every_link_between_the_pages_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *(page for folder in ("docs", "serving", "deploy") for page in (ROOT / folder).rglob("*.md"))]
    dead = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert pages
    assert dead == []
