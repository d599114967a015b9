"""The dashboards are what their program writes; every alert fires in promtool's tests and has its section in the runbook."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import queries
import yaml
from prometheus_client.metrics import MetricWrapperBase

from serving.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
RULE_TESTS = sorted((ROOT / "tests" / "observability").glob("*_test.yaml"))


def checks():
    """(alert, whether it is expected) of every check in promtool's tests."""
    groups = [group for path in RULE_TESTS for group in yaml.safe_load(path.read_text())["tests"]]
    return [(check["alertname"], bool(check["exp_alerts"])) for group in groups for check in group["alert_rule_test"]]


def test_committed_dashboards_are_written(tmp_path):
    folder = ROOT / "deploy" / "observability"
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import write_dashboards as w; from pathlib import Path\n"
        f"w.FOLDER = Path({str(tmp_path)!r}); w.main()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in (folder / "dashboards").iterdir()}


def test_dashboards_have_their_own_ids_and_no_panel_lies_on_another():
    boards = queries.dashboards()
    assert len({board["uid"] for board in boards.values()}) == len(boards) >= 5
    for board in boards.values():
        taken = set()
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken
            taken |= cells


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (le, pool) (rate(a_bucket{b="c",d=~"e|f"}[5m])) / (g:h > 0) and on (i) j == 0', {"a_bucket", "g:h", "j"}),
        ("1 - medserve:slow:ratio_rate1h", {"medserve:slow:ratio_rate1h"}),
        ("histogram_quantile(0.95, sum by (le) (rate(a_b[$__rate_interval]))) or vector(0)", {"a_b"}),
    ],
)
def test_the_metrics_of_a_query(query, names):
    assert queries.metrics_of(query) == names


def test_queries_name_metrics_of_ours_triton_s_or_ray_s():
    ours = set()
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(metric._type, [""])
            ours |= {metric._name + end for end in ends}
    named = queries.every_metric()
    assert named
    assert {name for name in named if not name.startswith(("nv_", "ray_"))} <= ours


def test_every_recorded_name_is_asked_for():
    asked = set().union(*map(queries.metrics_of, queries.queries().values()))
    assert queries.recorded() <= asked


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.name)
def test_alerts_fire_for_their_faults_and_are_silent_otherwise(path):
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_a_rule_that_never_fires_is_noticed(tmp_path):
    rules = tmp_path / "deploy" / "observability" / "rules"
    shutil.copytree(queries.FOLDER / "rules", rules)
    place = tmp_path / "tests" / "observability"
    place.mkdir(parents=True)
    shutil.copy2(RULE_TESTS[0], place)
    text = (rules / "alerts.yaml").read_text()
    assert "(medserve_selfcheck_ok) == 0" in text
    (rules / "alerts.yaml").write_text(text.replace("(medserve_selfcheck_ok) == 0", "(medserve_selfcheck_ok) == 7"))
    done = subprocess.run(["promtool", "test", "rules", str(place / RULE_TESTS[0].name)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "MedserveSelfCheckFailed" in done.stdout + done.stderr


def test_every_alert_is_tried_both_ways():
    tried = set(checks())
    assert {name for name, fires in tried if fires} == set(queries.alerts())
    assert {name for name, fires in tried if not fires} == set(queries.alerts())


def test_every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over():
    assert set(re.findall(r"^## (Medserve\w+)$", RUNBOOK, flags=re.MULTILINE)) == set(queries.alerts())
    for name, rules in queries.alerts().items():
        assert {rule["annotations"]["runbook_url"] for rule in rules} == {f"docs/runbook.md#{name.lower()}"}
        assert {rule["labels"]["severity"] for rule in rules} <= {"page", "ticket"}
        section = RUNBOOK.split(f"## {name}\n")[1].split("\n## ")[0]
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in section
