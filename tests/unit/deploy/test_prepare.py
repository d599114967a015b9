"""The init container's steps that need no engine: the cache's key, the pod's repository."""

import pytest

from serving.deploy import prepare
from serving.manifest import EngineRecord, Manifest, read_all
from serving.settings import load


def manifest(model, *engines):
    parts = {name: (EngineRecord(name=name, digest="d"),) for name in engines}
    return Manifest(model=model, family="clip", pool="contrastive", digest="d", source="s", licence="l", engines=parts)


def test_a_key_names_release_and_processor():
    assert prepare.key("0.1.0", "NVIDIA H100 80GB HBM3, 550.54.15") == "0.1.0-nvidia-h100-80gb-hbm3-550.54.15"
    assert prepare.key("0.1.0", "cpu-x86_64") == "0.1.0-cpu-x86-64"


def test_the_pod_s_repository_has_its_own_models_alone(tmp_path):
    folder, repository = tmp_path / "cache", tmp_path / "pod" / "repository"
    for name in ("a_encoder", "shared", "b_encoder"):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.onnx").write_text(name)
    first, second = manifest("a", "a_encoder", "shared"), manifest("a-too", "shared")
    prepare.link([first, second], folder, repository)
    assert {path.name for path in repository.iterdir()} == {"a_encoder", "shared", "a.json", "a-too.json"}
    assert (repository / "shared" / "1" / "model.onnx").read_text() == "shared"
    assert {each.model for each in read_all(repository)} == {"a", "a-too"}


def test_a_second_run_makes_the_repository_anew(tmp_path):
    (tmp_path / "a").mkdir()
    prepare.link([manifest("old", "gone")], tmp_path, tmp_path / "repository")
    prepare.link([manifest("new", "a")], tmp_path, tmp_path / "repository")
    assert {path.name for path in (tmp_path / "repository").iterdir()} == {"a", "new.json"}


def test_an_unknown_model_is_one_line_and_a_failure(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MEDSERVE_CONFIG", raising=False)
    with pytest.raises(SystemExit) as ended:
        prepare.main([f"--cache={tmp_path}", "--release=1", f"--repository={tmp_path / 'r'}", "imaginary"])
    assert ended.value.code == 1
    assert "imaginary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "name", "version", "files"),
    [
        ("litemedsam", "litemedsam", "", []),
        ("chexzero=/models/a.pt,/models/b.pt", "chexzero", "", ["/models/a.pt", "/models/b.pt"]),
        ("litemedsam@2=/models/tuned.pth", "litemedsam", "2", ["/models/tuned.pth"]),
    ],
)
def test_a_model_may_name_a_version_and_checkpoints(monkeypatch, tmp_path, said, name, version, files):
    asked = []
    monkeypatch.setattr(prepare, "build", lambda *given, **more: asked.append((given[0], more)) or ())
    prepare.prepare(load(None, {}), tmp_path / "cache", "0.1.0", tmp_path / "repository", [said])
    ((given, more),) = asked
    assert (given, more["version"], [str(file) for file in more["checkpoints"]]) == (name, version, files)
