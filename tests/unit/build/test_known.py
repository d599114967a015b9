import hashlib
from dataclasses import replace

import pytest

from serving.build import known
from serving.build.build import build
from serving.build.catalogue import ENTRIES
from serving.build.weights import Checkpoint
from serving.errors import SetupError

MEDSAM, SAM, CLIP = ENTRIES["medsam"], ENTRIES["sam-vit-b"], ENTRIES["clip"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.pth"
    path.write_bytes(b"weights")
    return Checkpoint(path, hashlib.sha256(b"weights").hexdigest(), "s", "l")


@pytest.fixture
def july(file, monkeypatch):
    """The same file, taken for the one whose md5 is published."""
    monkeypatch.setitem(known.MD5, hashlib.md5(b"weights").hexdigest(), "july-2023")
    return file


def test_never_guessed(file):
    with pytest.raises(SetupError, match="say --preprocessing july-2023 or --preprocessing april-2023"):
        known.preprocessing(MEDSAM, "", (file,))
    assert known.preprocessing(MEDSAM, "april-2023", (file,)) == "april-2023"


def test_a_build_without_it_is_refused_before_anything_is_made(file, tmp_path):
    with pytest.raises(SetupError, match="cannot tell how this checkpoint was trained"):
        build("medsam", tmp_path, tmp_path / "repository", checkpoints=(file.path,), say=lambda line: None)
    assert not (tmp_path / "repository").exists()


def test_told_by_the_file(july):
    assert known.preprocessing(MEDSAM, "", (july,)) == "july-2023"
    assert known.preprocessing(MEDSAM, "july-2023", (july,)) == "july-2023"


def test_the_file_may_not_be_contradicted(july):
    with pytest.raises(SetupError, match="published with the preprocessing july-2023, not april-2023"):
        known.preprocessing(MEDSAM, "april-2023", (july,))
    with pytest.raises(SetupError, match="july-2023, which sam-vit-b does not have"):
        known.preprocessing(SAM, "", (july,))


def test_sam_s_own_files_are_known_and_are_not_medsam_s(file):
    for sha256 in known.SHA256:
        sam = replace(file, sha256=sha256)
        assert known.preprocessing(SAM, "", (sam,)) == "sam"
        with pytest.raises(SetupError, match="sam, which medsam does not have"):
            known.preprocessing(MEDSAM, "july-2023", (sam,))


def test_an_entry_with_one_needs_no_word_and_one_with_none_takes_none(file):
    assert known.preprocessing(SAM, "", (file,)) == "sam"
    assert known.preprocessing(CLIP, "", (file,)) == ""
    with pytest.raises(SetupError, match="clip has no preprocessing sam; it has one only"):
        known.preprocessing(CLIP, "sam", (file,))
    with pytest.raises(SetupError, match="it has: july-2023, april-2023"):
        known.preprocessing(MEDSAM, "sam", (file,))


@pytest.mark.parametrize(("name", "usual"), [("medclip", "processor"), ("medsiglip", "container")])
def test_a_choice_that_is_no_fact_of_the_checkpoint_has_a_default(name, usual, file):
    assert known.preprocessing(ENTRIES[name], "", [file]) == usual
    assert known.preprocessing(ENTRIES[name], "evaluation", [file]) == "evaluation"
