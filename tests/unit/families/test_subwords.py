"""Token ids are those of the libraries that the publishers used, by the checkpoint's own vocabulary."""

import base64
import random
import string

import numpy as np
import pytest
import small_checkpoints
from transformers import BertTokenizer, SiglipTokenizer

from serving.errors import Fault, SetupError
from serving.families.subwords import SiglipTokenizer as OurSiglip
from serving.families.subwords import WordPieceTokenizer
from serving.families.tokenizer import open_tokenizer, without_padding

TEXTS = (
    "Mild pulmonary EDEMA at the left lung-base.",
    "no  pleural\teffusion, (stable) heart size 1.5",
    "Ödème [of] the café",
    "x" * 120 + " normal",
    "▁odd ▁marks é 中文",
    "  blanks around  ",
    "!?.",
)


@pytest.fixture(scope="module")
def spiece(tmp_path_factory):
    return small_checkpoints.sentence_pieces(tmp_path_factory.mktemp("spiece"))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    file = tmp_path_factory.mktemp("words") / "vocab.txt"
    file.write_text("\n".join(small_checkpoints.word_pieces()) + "\n")
    return BertTokenizer(vocab=str(file)), WordPieceTokenizer(small_checkpoints.word_pieces())


@pytest.fixture(scope="module")
def pieces(spiece):
    return SiglipTokenizer(str(spiece)), OurSiglip(base64.b64encode(spiece.read_bytes()).decode())


def noise(count):
    stream = random.Random(0)
    letters = string.ascii_letters + string.digits + string.punctuation + " \t\u00e9\u00df\u2019\u0130"
    return ["".join(stream.choices(letters, k=stream.randint(1, 60))) for _ in range(count)]


@pytest.mark.parametrize("length", [77, 12])
def test_word_pieces_equal_transformers(words, length):
    theirs, ours = words
    texts = [*TEXTS, *noise(200), *(f"{a} {b}" for a in small_checkpoints.WORDS for b in ("mild", "unseen"))]
    wanted = theirs(texts, padding="max_length", truncation=True, max_length=length, return_tensors="np")["input_ids"]
    assert np.array_equal(ours.batch(texts, length), wanted)


def test_padding_to_the_longest_is_what_is_left_of_the_whole(words):
    theirs, ours = words
    texts = list(TEXTS[:3])
    assert np.array_equal(without_padding(ours.batch(texts, 77)), theirs(texts, padding=True, return_tensors="np")["input_ids"])


@pytest.mark.parametrize("length", [64, 8])
def test_sentence_pieces_equal_transformers(pieces, length):
    theirs, ours = pieces
    texts = [*TEXTS, *noise(200), *small_checkpoints.SENTENCES[:40]]
    wanted = theirs(texts, padding="max_length", truncation=True, max_length=length, return_tensors="np")["input_ids"]
    assert np.array_equal(ours.batch(texts, length), wanted)


def test_they_are_opened_by_name(spiece):
    by_words = open_tokenizer({"tokenizer": "wordpiece", "vocabulary": small_checkpoints.word_pieces()})
    assert by_words.vocab_size == len(small_checkpoints.word_pieces())
    by_model = open_tokenizer({"tokenizer": "siglip", "vocabulary": base64.b64encode(spiece.read_bytes()).decode()})
    assert by_model.encode("edema")[-1] == 1


def test_too_long_is_an_error_where_it_is_asked_for(words):
    with pytest.raises(Fault):
        words[1].batch(["edema " * 80], 77, truncate=False)


@pytest.mark.parametrize("vocabulary", [[], ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"], ["[PAD]", "a", "a"]])
def test_a_vocabulary_that_is_none(vocabulary):
    with pytest.raises(SetupError, match="PAD"):
        WordPieceTokenizer(vocabulary)


@pytest.mark.parametrize("model", ["", "not base64!", base64.b64encode(b"something else").decode()])
def test_a_model_that_is_none(model):
    with pytest.raises(SetupError, match="SentencePiece"):
        OurSiglip(model)
