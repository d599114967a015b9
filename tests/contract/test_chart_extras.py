"""What the chart brings beside the service: rules, dashboards, a load test."""

import json
import subprocess
import sys
from pathlib import Path

import helm
import yaml
from charts import objects


def test_rules_and_dashboards_are_the_observability_folder_s():
    source, copied = helm.ROOT / "deploy" / "observability", helm.CHART / "observability"
    ours = {
        path.relative_to(source): path.read_text() for path in [*source.glob("rules/*.yaml"), *source.glob("dashboards/*.json")]
    }
    theirs = {path.relative_to(copied): path.read_text() for path in [*copied.glob("rules/*"), *copied.glob("dashboards/*")]}
    assert theirs == ours, "run: python deploy/helm/copy_observability.py"
    made = objects("cpu, all on", "PrometheusRule")
    groups = [group for each in made for group in each["spec"]["groups"]]
    assert groups == [
        group for path in sorted(ours) if path.suffix == ".yaml" for group in yaml.safe_load(ours[path])["groups"]
    ]
    boards = [each["data"] for each in objects("cpu, all on", "ConfigMap") if "dashboard" in each["metadata"]["name"]]
    assert {name: json.loads(text) for data in boards for name, text in data.items()} == {
        path.name: json.loads(text) for path, text in ours.items() if path.suffix == ".json"
    }


def test_the_load_test_names_real_scenarios():
    (job,) = objects("cpu, all on", "Job")
    (locust,) = job["spec"]["template"]["spec"]["containers"]
    listed = (helm.ROOT / "loadtests" / "locustfile.py").read_text()
    users = [word for word in locust["args"] if not word.startswith("--")]
    assert users
    assert all(f'"{user}"' in listed for user in users)
    assert Path(locust["command"][2]).name == "locustfile.py"


def test_locust_takes_the_load_test_s_arguments(tmp_path):
    """The real locust, asked with the Job's words which users it would run."""
    (job,) = objects("cpu, all on", "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (thresholds,) = [each for each in objects("cpu, all on", "ConfigMap") if each["metadata"]["name"].endswith("-thresholds")]
    (tmp_path / "thresholds.toml").write_text(thresholds["data"]["thresholds.toml"])
    words = [*container["command"][1:], *container["args"]]
    words = [word.replace("/etc/loadtest", str(tmp_path)).replace("/app/", f"{helm.ROOT}/") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "locust", *words, "--list"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"S1Http", "S3Http"} <= set(done.stdout.split())
