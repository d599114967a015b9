"""A user's checkpoint of each two-tower family becomes engines by one call, with its tokenizer in the record."""

import json

import pytest
import small_checkpoints

from serving.build.build import build
from serving.errors import SetupError
from serving.families.tokenizer import open_tokenizer

MAKERS = {
    "medclip": small_checkpoints.medclip_checkpoint,
    "biomedclip": small_checkpoints.biomedclip_checkpoint,
    "medsiglip": small_checkpoints.medsiglip_checkpoint,
}


def quiet(line):
    del line


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


def test_builds_what_it_needs_and_then_nothing(checkpoints, tmp_path):
    given = {"checkpoints": [checkpoints["biomedclip"]], "served_as": "mine", "say": quiet}
    (manifest,) = build("biomedclip", tmp_path, tmp_path, **given)
    assert (manifest.model, manifest.family, set(manifest.engines)) == ("mine", "biomedclip", {"image_encoder", "text_encoder"})
    for records in manifest.engines.values():
        assert records[0].parity["embedding_max_abs"] <= 1e-5 * records[0].parity["embedding_scale"]
    assert open_tokenizer(manifest.options).batch(["Mild edema."], 256).shape == (1, 256)
    assert build("biomedclip", tmp_path, tmp_path, **given)[0].built_at == manifest.built_at


def test_a_tokenizer_json_gives_the_same_words(checkpoints, tmp_path):
    pieces = small_checkpoints.word_pieces()
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": {word: number for number, word in enumerate(pieces)}}}))
    from serving.build import vocabulary

    beside = checkpoints["medclip"].parent / "vocab.txt"
    rows = len(pieces)
    assert vocabulary.read(file, "wordpiece", rows) == vocabulary.read(beside, "wordpiece", rows)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("medclip", {"options": ("ensemble=median",)}, "ensemble is one of mean, max"),
        ("medclip", {"options": ("seed=x",)}, "seed is a whole number"),
        ("medclip", {"options": ("loud",)}, "has no option loud"),
        ("medclip", {"preprocessing": "container"}, "has no preprocessing container; it has: processor, evaluation"),
        ("biomedclip", {"options": ("seed=1",)}, "it has none"),
    ],
)
def test_what_the_model_does_not_offer_is_refused(name, given, said, checkpoints, tmp_path):
    with pytest.raises(SetupError, match=said):
        build(name, tmp_path, tmp_path, checkpoints=[checkpoints[name]], say=quiet, **given)
    assert not list(tmp_path.glob("*.json"))


def test_a_tokenizer_that_is_missing_or_anothers_is_refused(checkpoints, tmp_path):
    lonely = tmp_path / "alone.bin"
    lonely.write_bytes(checkpoints["medclip"].read_bytes())
    with pytest.raises(SetupError, match=r"medclip needs vocab\.txt or tokenizer\.json; none lies beside"):
        build("medclip", tmp_path, tmp_path, checkpoints=[lonely], say=quiet)
    with pytest.raises(SetupError, match="leave --tokenizer out"):
        build("clip", tmp_path, tmp_path, checkpoints=[lonely], tokenizer=lonely, say=quiet)
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*small_checkpoints.word_pieces(), "more"]))
    with pytest.raises(SetupError, match="do not belong together"):
        build("medclip", tmp_path, tmp_path, checkpoints=[lonely], tokenizer=other, say=quiet)
    other.write_text("words\nwithout\nmarks\n")
    with pytest.raises(SetupError, match="PAD"):
        build("medclip", tmp_path, tmp_path, checkpoints=[lonely], tokenizer=other, say=quiet)
    broken = tmp_path / "spiece.model"
    broken.write_bytes(b"\xff\xfe nothing")
    with pytest.raises(SetupError, match="SentencePiece model cannot be read"):
        build("medsiglip", tmp_path, tmp_path, checkpoints=[checkpoints["medsiglip"]], tokenizer=broken, say=quiet)
    assert not list(tmp_path.glob("*.json"))
