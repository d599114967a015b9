"""The ids of both tokenizers, their padding, and what a text that is too long is told."""

from __future__ import annotations

import numpy as np
import pytest

from serving.errors import Fault, Kind, SetupError
from serving.families.tokenizer import ClipTokenizer, Tokenizer, WordTokenizer, open_tokenizer, without_padding

WORDS = ("no", "pleural", "effusion", "x", "-", "ray", ".", "2")


@pytest.fixture(scope="module")
def clip() -> ClipTokenizer:
    return ClipTokenizer()


def test_clip_gives_the_published_ids(clip: ClipTokenizer) -> None:
    assert clip.encode("a diagram") == [49406, 320, 22697, 49407]
    assert clip.encode("a dog") == [49406, 320, 1929, 49407]
    assert clip.encode("  A  photo\nof a cat. ") == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert clip.encode("") == [49406, 49407]
    assert clip.vocab_size == 49408


def test_batch_pads_with_zero_and_ends_at_the_highest_id(clip: ClipTokenizer) -> None:
    ids = clip.batch(["a dog", "a photo of a cat."], 77)
    assert ids.shape == (2, 77)
    assert ids.dtype == np.int64
    assert ids.argmax(-1).tolist() == [3, 7]
    assert ids[0, 4:].max() == 0
    assert clip.batch([], 77).shape == (0, 77)


def test_padding_behind_the_longest_text_is_cut_and_nothing_else(clip: ClipTokenizer) -> None:
    ids = clip.batch(["a dog", "!!! a photo of a cat !!!"], 77)
    cut = without_padding(ids)
    assert cut.shape == (2, max(len(clip.encode(text)) for text in ("a dog", "!!! a photo of a cat !!!")))
    assert cut.flags.c_contiguous
    assert np.array_equal(cut, ids[:, : cut.shape[1]])
    assert ids[:, cut.shape[1] :].max() == 0
    assert without_padding(clip.batch([], 77)).shape[0] == 0


def test_words_are_lower_cased_and_unknown_ones_are_one_id() -> None:
    words = WordTokenizer(WORDS)
    assert words.encode("No pleural effusion.") == [words.start, 2, 3, 4, 8, words.end]
    assert words.encode("X-ray 2, pleura") == [words.start, 5, 6, 7, 9, 1, 1, words.end]
    assert words.vocab_size == len(WORDS) + 4
    assert words.end == words.vocab_size - 1
    assert words.batch(["no no effusion"], 8).tolist() == [[words.start, 2, 2, 4, words.end, 0, 0, 0]]


@pytest.mark.parametrize("options", [{"tokenizer": "clip-bpe"}, {"tokenizer": "words", "vocabulary": list(WORDS)}])
def test_a_text_that_is_too_long_is_named(options: dict[str, object]) -> None:
    tokenizer: Tokenizer = open_tokenizer(options)
    exact = tokenizer.batch(["no no no"], 5)
    with pytest.raises(Fault, match="text 1 has 4 tokens: at most 3 are allowed") as caught:
        tokenizer.batch(["no", "no no no no"], 5)
    assert caught.value.kind is Kind.INVALID
    assert tokenizer.batch(["no no no no"], 5, truncate=True).tolist() == exact.tolist()


@pytest.mark.parametrize("options", [{}, {"tokenizer": "wordpiece"}, {"tokenizer": "words"}])
def test_a_wrong_record_is_a_set_up_error(options: dict[str, object]) -> None:
    with pytest.raises(SetupError):
        open_tokenizer(options)


def test_a_word_twice_is_a_set_up_error() -> None:
    with pytest.raises(SetupError):
        WordTokenizer(("no", "no"))
