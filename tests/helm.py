"""Renders the chart with Helm's own library: a program of its own, as it is Go and takes its process along when it fails.

It reads ``[[name, values], ...]`` as JSON and writes ``{name: {"objects": [...]} or {"error": "..."}}``. `render` is for the
tests: one run of the program for all that is asked together.
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "medserve"
RELEASE, NAMESPACE = "trial", "imaging"
TIMEOUT_S = 120


def profile(name, **values):
    """A profile's values with others over them."""
    return merged(yaml.safe_load((CHART / "profiles" / f"{name}.yaml").read_text()), values)


def merged(below, above):
    """One tree of values over another, as Helm does it."""
    return below | {
        key: merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }


def render(wanted):
    """name -> values to name -> list of objects, or the error's text."""
    asked = json.dumps(list(wanted.items()))
    done = subprocess.run(
        [sys.executable, __file__], input=asked, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    return {name: answer.get("objects", answer.get("error")) for name, answer in answers.items()}


def main():
    import helm_python

    answers = {}
    with helm_python.Chart.load(CHART) as chart:
        for name, values in json.load(sys.stdin):
            try:
                chart.validate_schema(values)
                manifests = chart.render(values, name=RELEASE, namespace=NAMESPACE)
                texts = [text for path, text in sorted(manifests.items()) if path.endswith(".yaml")]
                answers[name] = {"objects": [each for text in texts for each in yaml.safe_load_all(text) if each]}
            except helm_python.HelmError as exc:
                answers[name] = {"error": str(exc)}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
