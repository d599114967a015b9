"""What is asked of a run, and what it gave."""

import pytest
import thresholds


def measured(kind="prompt", **changed):
    given = {"calls": 100, "p50_ms": 20, "p95_ms": 40, "p99_ms": 60, "failed": 0.0, "refused": 0.0, "per_s": 30.0, **changed}
    return thresholds.Measured(kind, **given)


def failed(verdicts):
    return [(each.kind, each.key) for each in verdicts if not each.passed]


def test_the_file_of_the_project_is_read():
    assert thresholds.read(environ={})["prompt"]["p95_ms"] == 250


def test_a_kind_overrides_all():
    wanted = {"all": {"p95_ms": 30, "failed": 0.0}, "encode": {"p95_ms": 50}}
    verdicts = thresholds.judge({"prompt": measured(), "encode": measured("encode")}, wanted)
    assert failed(verdicts) == [("prompt", "p95_ms")]


def test_a_rate_is_a_least_value():
    assert failed(thresholds.judge({"prompt": measured()}, {"prompt": {"per_s": 31}})) == [("prompt", "per_s")]
    assert not failed(thresholds.judge({"prompt": measured()}, {"prompt": {"per_s": 30}}))


def test_what_must_be_called_and_was_not_fails():
    wanted = {"encode": {"required": 5}}
    assert failed(thresholds.judge({"prompt": measured()}, wanted)) == [("encode", "required")]
    assert failed(thresholds.judge({"encode": measured("encode", calls=4)}, wanted)) == [("encode", "required")]


def test_a_run_without_a_call_fails():
    assert failed(thresholds.judge({}, {"all": {"failed": 0.0}})) == [("all", "required")]


def test_the_environment_overrides_every_kind(tmp_path):
    found = thresholds.read(environ={"LOADTEST_THRESHOLD_P95_MS": "7"})
    assert {keys["p95_ms"] for keys in found.values()} == {7.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[prompt]\np96_ms = 3", "prompt.p96_ms"),
        ("[prompt]\np95_ms = 'soon'", "prompt.p95_ms"),
        ("[prompt", "thresholds t.toml"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(tmp_path, text, said):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        thresholds.read(path, environ={})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_both_fronts_of_a_kind_are_judged_together():
    both = thresholds._worse(measured(p95_ms=40, failed=0.1), measured(p95_ms=90, calls=300))
    assert both.p95_ms == 90
    assert both.calls == 400
    assert both.failed == pytest.approx(0.025)
