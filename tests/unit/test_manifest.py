from pathlib import Path

import pytest

from serving.errors import SetupError
from serving.manifest import EngineRecord, Manifest, read_all


def manifest(name: str, **more: object) -> Manifest:
    engines = {"image_encoder": (EngineRecord(name=f"{name}_image_encoder", digest="d"),)}
    values = {"family": "litemedsam", "pool": "adaptive", "digest": "c", "source": "s", "licence": "l", "engines": engines}
    return Manifest(model=name, **{**values, **more})  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path):
    manifest("a").write(tmp_path)
    manifest("b").write(tmp_path)
    assert [m.model for m in read_all(tmp_path)] == ["a", "b"]
    assert read_all(tmp_path, ("b",))[0].info().engines == {"b_image_encoder/1": "d"}
    assert not list(tmp_path.glob("*.part"))


def test_nothing_built_says_what_to_do(tmp_path: Path):
    with pytest.raises(SetupError, match="medserve models build"):
        read_all(tmp_path)


def test_a_model_that_is_not_built_is_named(tmp_path: Path):
    manifest("a").write(tmp_path)
    with pytest.raises(SetupError, match="medserve models build zzz"):
        read_all(tmp_path, ("a", "zzz"))


def test_a_damaged_record_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(SetupError, match="model a "):
        read_all(tmp_path)
