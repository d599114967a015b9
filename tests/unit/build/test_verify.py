"""Each check of a built model by itself: good, bad, and not to be made."""

import hashlib
import json

import pytest

from serving.build import plans, verify
from serving.build.checks import Target
from serving.families.registry import FAMILIES
from serving.manifest import EngineRecord, Manifest

ENGINE = b"an engine"
GATE = {"kind": "mask_iou", "mean": 0.9934, "min": 0.96, "prompts": 120, "passed": True}


def target(tmp_path, family="litemedsam", **changes):
    """A model of one engine, whose record is as given."""
    good = {
        "name": "m_mask_decoder",
        "digest": hashlib.sha256(ENGINE).hexdigest(),
        "parity": {"y_max_abs": 1e-5, "y_scale": 4.0},
    }
    record = EngineRecord(**{**good, **changes})
    folder = tmp_path / record.name / record.version
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(ENGINE)
    engines = {"mask_decoder": (record,)}
    manifest = Manifest(model="m", family=family, pool="adaptive", digest="d" * 64, source="s", licence="l", engines=engines)
    return Target(manifest, dict(FAMILIES[family].specs(manifest)), tmp_path)


def states(checks):
    return [check.state for check in checks]


def test_an_artefact_is_what_was_recorded(tmp_path):
    made = target(tmp_path)
    assert states(verify.artefacts(made)) == ["ok"]
    (tmp_path / "m_mask_decoder" / "1" / "model.bin").write_bytes(b"another")
    (check,) = verify.artefacts(made)
    assert (check.state, "build it again" in check.detail) == ("fail", True)
    (tmp_path / "m_mask_decoder" / "1" / "model.bin").unlink()
    (check,) = verify.artefacts(made)
    assert "nothing is there" in check.line()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "ok"),
        ({"precision": "bf16", "gate": GATE}, "ok"),
        ({"precision": "bf16"}, "fail"),
        ({"precision": "bf16", "gate": {**GATE, "passed": False}}, "fail"),
        ({"gate": {"failed": {"bf16": {"passed": False}}}}, "ok"),
    ],
)
def test_an_engine_below_float32_needs_its_gate(tmp_path, changes, state):
    assert states(verify.gates(target(tmp_path, **changes))) == [state]


def test_an_engine_that_parity_alone_judged_says_so(tmp_path):
    made = target(tmp_path, gate={"precision": "f32", "kind": "parity", "passed": True})
    assert [check.detail for check in verify.gates(made)] == ["f32: by parity alone"]


def test_recorded_parity_is_held_to_the_build_s_bound_and_recomputed_only_from_its_own_checkpoint(tmp_path):
    recorded, again = verify.parity(target(tmp_path / "a"), tmp_path, None, print)
    assert (recorded.state, again.state) == ("ok", "none")
    assert "--checkpoint" in again.detail
    (tmp_path / "other.pt").write_bytes(b"x")
    far = target(tmp_path / "b", parity={"y_max_abs": 1e-2, "y_scale": 4.0})
    recorded, again = verify.parity(far, tmp_path, tmp_path / "other.pt", print)
    assert (recorded.state, again.state) == ("fail", "none")
    assert "another checkpoint" in again.detail


def test_a_plan_in_the_cache_is_whole_and_gated_and_said_not_to_have_run(tmp_path):
    folder = tmp_path / "engines" / "0a"
    folder.mkdir(parents=True)
    (folder / plans.PLAN).write_bytes(ENGINE)
    record = {"model": "m", "engine": "m_mask_decoder", "builder": "tensorrt-rtx-1.7", "precision": "bf16", "executed": False}
    record |= {"digest": hashlib.sha256(ENGINE).hexdigest(), "gate": {**GATE, "where": "emulated on the CPU"}}
    (folder / plans.RECORD).write_text(json.dumps(record))
    assert states(verify.cached_plans("m", tmp_path)) == ["ok", "none"]
    assert states(verify.cached_plans("other", tmp_path)) == []
    (folder / plans.PLAN).write_bytes(b"damaged")
    assert states(verify.cached_plans("m", tmp_path)) == ["fail", "none"]
