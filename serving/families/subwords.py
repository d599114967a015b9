"""Text to token ids by a checkpoint's own vocabulary: BERT's WordPiece and SigLIP's SentencePiece, as published.

Texts that are too long are cut, their last id kept: so both models were published.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Sequence

import numpy as np
from sentencepiece import SentencePieceProcessor
from tokenizers import BertWordPieceTokenizer

from serving.errors import SetupError
from serving.families.tokenizer import Ids, padded

_PUNCTUATION = str.maketrans("", "", string.punctuation)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPieceTokenizer:
    """BERT's word pieces between [CLS] and [SEP], padded with 0. `vocabulary`: the lines of `vocab.txt`, [PAD] first.

    Lower case and without accents: so does the tokenizer that Hugging Face opens for Bio-ClinicalBERT and PubMedBERT.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        ids = {word: number for number, word in enumerate(vocabulary)}
        if len(ids) != len(vocabulary) or ids.get("[PAD]") != 0 or any(word not in ids for word in SPECIAL):
            raise SetupError(f"a WordPiece vocabulary holds each piece once, [PAD] first, and {', '.join(SPECIAL[1:])}")
        self.vocab_size = len(ids)
        self._pieces = BertWordPieceTokenizer(ids, lowercase=True)

    def encode(self, text: str) -> list[int]:
        """The ids of one text, [CLS] and [SEP] included."""
        return list(self._pieces.encode(text).ids)

    def batch(self, texts: Sequence[str], context_length: int, *, truncate: bool = True) -> Ids:
        """Ids (n, context_length) int64. See `Tokenizer.batch`."""
        return padded([self.encode(text) for text in texts], context_length, truncate)


class SiglipTokenizer:
    """SigLIP's sentence pieces and </s>, padded with </s>. `model`: the file `spiece.model`, base64.

    Text is made lower case and loses ASCII punctuation first, as big_vision and transformers' SiglipTokenizer do.
    """

    def __init__(self, model: str) -> None:
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(base64.b64decode(model, validate=True))
        except (RuntimeError, ValueError) as exc:
            raise SetupError("the SentencePiece model cannot be read: give the checkpoint's own spiece.model") from exc
        self.vocab_size = int(self._pieces.get_piece_size())
        self.end = int(self._pieces.piece_to_id("</s>"))
        # Text behind an unknown piece keeps its first blank, which the model itself would take off.
        self._before = "<unk>"
        self._skip = len(self._pieces.encode(self._before))

    def encode(self, text: str) -> list[int]:
        """The ids of one text, </s> included."""
        plain = ("▁" + text.replace("▁", " ")).lower().translate(_PUNCTUATION)
        plain = re.sub(r"\s+", " ", plain).strip()
        ids = [int(number) for number in self._pieces.encode(self._before + plain)]
        return [*(ids[self._skip :] if len(ids) >= self._skip else ids), self.end]

    def batch(self, texts: Sequence[str], context_length: int, *, truncate: bool = True) -> Ids:
        """Ids (n, context_length) int64. See `Tokenizer.batch`."""
        ids = padded([self.encode(text) for text in texts], context_length, truncate, self.end)
        return np.asarray(ids, np.int64)
