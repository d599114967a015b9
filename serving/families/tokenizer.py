"""Text to token ids: CLIP's byte-pair tokenizer, and a word tokenizer for towers with a small vocabulary of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from instant_clip_tokenizer import Tokenizer as BytePairs

from serving.errors import Fault, Kind, SetupError

Ids = npt.NDArray[np.int64]

PAD = 0
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


class Tokenizer(Protocol):
    """Text to ids."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of one text between its start id and its end id, as many as there are."""
        ...

    def batch(self, texts: Sequence[str], context_length: int, *, truncate: bool = False) -> Ids:
        """Ids (n, context_length) int64, padded at the end.

        Raises Fault INVALID for the first text with more ids than the context has. With `truncate`, which is the default of
        tokenizers that were published so, such a text is cut, its last id the end id.
        """
        ...


class ClipTokenizer:
    """OpenAI's byte pairs: 49408 ids, 49406 starts a text and 49407 ends it."""

    vocab_size = 49408

    def __init__(self) -> None:
        self._pairs = BytePairs()

    def encode(self, text: str) -> list[int]:
        """The ids of one text, start and end included. White space counts as one blank, as in OpenAI's tokenizer."""
        ids = self._pairs.encode(" ".join(text.split()))
        return [self._pairs.start_of_text(), *ids, self._pairs.end_of_text()]

    def batch(self, texts: Sequence[str], context_length: int, *, truncate: bool = False) -> Ids:
        """Ids (n, context_length) int64. See `Tokenizer.batch`."""
        return padded([self.encode(text) for text in texts], context_length, truncate)


class WordTokenizer:
    """Words, numbers and punctuation marks in lower case. Ids: 0 pads, 1 is unknown, the words, start, end."""

    unknown = 1

    def __init__(self, vocabulary: tuple[str, ...]) -> None:
        self._ids = {word: number for number, word in enumerate(vocabulary, start=2)}
        if not vocabulary or len(self._ids) != len(vocabulary):
            raise SetupError("the vocabulary of a word tokenizer must hold words, each of them once")
        self.start = len(vocabulary) + 2
        self.end = self.start + 1
        self.vocab_size = self.end + 1

    def encode(self, text: str) -> list[int]:
        """The ids of one text, start and end included."""
        return [self.start, *(self._ids.get(word, self.unknown) for word in _WORD.findall(text.lower())), self.end]

    def batch(self, texts: Sequence[str], context_length: int, *, truncate: bool = False) -> Ids:
        """Ids (n, context_length) int64. See `Tokenizer.batch`."""
        return padded([self.encode(text) for text in texts], context_length, truncate)


def without_padding(ids: Ids) -> Ids:
    """Ids (n, context_length) padded with 0 -> (n, length of the longest text), contiguous. A text's last id is never 0."""
    used = np.flatnonzero((ids != PAD).any(axis=0))
    return np.ascontiguousarray(ids[:, : int(used[-1]) + 1 if len(used) else 1])


def open_tokenizer(options: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a model's record names: `tokenizer` is "clip-bpe", or one that needs its `vocabulary`.

    "words" and "wordpiece" take a list of words, "siglip" a SentencePiece model in base64. Raises SetupError.
    """
    kind, vocabulary = options.get("tokenizer"), options.get("vocabulary", ())
    if kind == "clip-bpe":
        return ClipTokenizer()
    if kind == "words":
        return WordTokenizer(tuple(vocabulary))
    if kind in ("wordpiece", "siglip"):
        from serving.families import subwords

        return subwords.WordPieceTokenizer(vocabulary) if kind == "wordpiece" else subwords.SiglipTokenizer(vocabulary)
    raise SetupError(f"unknown tokenizer {kind!r} in the model's record: use 'clip-bpe', 'words', 'wordpiece' or 'siglip'")


def padded(rows: Sequence[list[int]], context_length: int, truncate: bool, pad: int = PAD) -> Ids:
    """(rows, context_length) int64. Raises Fault INVALID for the first row that is too long, unless `truncate`."""
    out = np.full((len(rows), context_length), pad, np.int64)
    for index, row in enumerate(rows):
        if len(row) > context_length:
            if not truncate:
                raise Fault(
                    Kind.INVALID,
                    f"text {index} has {len(row) - 2} tokens: at most {context_length - 2} are allowed",
                    param="text",
                )
            row = [*row[: context_length - 1], row[-1]]
        out[index, : len(row)] = row
    return out
