"""Writes deploy/helm/medserve/values.schema.json: `python deploy/helm/write_schema.py`. `--check` only looks.

The chart's own values are in `values.base.schema.json`, by hand; `settings` is the server's own schema (`serving/settings.py`),
without what the chart decides and without secrets, and `pools` takes exactly the pools that the server has.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from serving.settings import Settings  # noqa: E402

BASE = HERE / "values.base.schema.json"
TARGET = HERE / "medserve" / "values.schema.json"
OWNED = {
    "Settings": ("home", "shape", "http", "grpc", "auth"),
    "FeaturesSettings": ("region",),
    "TritonSettings": ("address", "key"),
    "RepositorySettings": ("path", "models"),
    "RouterSettings": ("resources", "replicas"),
    "PoolSettings": ("resources",),
    "VolumeSettings": ("spool",),
}
"""What the chart decides, or a Secret holds: by the settings' classes."""


def schema():
    """The whole schema, as a dict."""
    whole = json.loads(BASE.read_text())
    settings = Settings.model_json_schema()
    definitions = settings.pop("$defs")
    for owner, names in OWNED.items():
        tree = settings if owner == "Settings" else definitions[owner]
        for name in names:
            del tree["properties"][name]
    whole["$defs"].update({name: _plain(tree) for name, tree in definitions.items() if _used(name, settings, definitions)})
    whole["properties"]["settings"] = _plain(settings)
    pools = definitions["PoolsSettings"]["properties"]
    whole["properties"]["pools"]["properties"] = {name: {"$ref": "#/$defs/pool"} for name in pools}
    return whole


def _used(name, settings, definitions):
    mark = f'"#/$defs/{name}"'
    return mark in json.dumps([settings, *(tree for other, tree in definitions.items() if other != name)])


def _plain(tree):
    """Without defaults, which would say what is so on a laptop, and without titles and formats that only Python knows."""
    if isinstance(tree, dict):
        keep = {key: value for key, value in tree.items() if not (key in ("default", "title", "format") and _leaf(value))}
        return {key: _plain(value) for key, value in keep.items()}
    return [_plain(each) for each in tree] if isinstance(tree, list) else tree


def _leaf(value):
    """Not a property that happens to have such a name."""
    return not isinstance(value, dict) or "type" not in value


def text():
    """The file's text."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(
            0 if TARGET.read_text() == text() else "values.schema.json is not up to date: python deploy/helm/write_schema.py"
        )
    TARGET.write_text(text())
