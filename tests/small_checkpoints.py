"""Small seeded checkpoints in published layouts, each with its tokenizer's file beside it: a user's, but narrow."""

import string

import sentencepiece
import torch
from safetensors.torch import save_file

from serving.build.nets import biomedclip, medclip, siglip, swin
from serving.build.nets.bert import BertConfig
from serving.families.subwords import SPECIAL

TEXT = """
atelectasis pulmonary edema cardiomegaly consolidation pleural effusion no a of the at left right lung base lower lobe mild
moderate small large stable chest radiograph heart size normal this is photo pneumonia finding
"""
WORDS = TEXT.split()
SENTENCES = [f"{one} {two} in the {three} of a patient" for one in WORDS for two in WORDS[:6] for three in ("lung", "heart")]
OUT = 24


def word_pieces():
    """The lines of a `vocab.txt`."""
    letters = [*(letter for letter in string.ascii_lowercase if letter not in WORDS), *string.digits, *"[](),.-"]
    return [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in string.ascii_lowercase + string.digits)]


def sentence_pieces(folder):
    """A `spiece.model` of unigrams, with the special ids of SigLIP's."""
    text, prefix = folder / "sentences.txt", folder / "spiece"
    text.write_text("\n".join(SENTENCES))
    sentencepiece.SentencePieceTrainer.Train(
        f"--input={text} --model_prefix={prefix} --vocab_size=120 --model_type=unigram --pad_id=0 --eos_id=1 --unk_id=2 "
        "--bos_id=-1 --add_dummy_prefix=true --hard_vocab_limit=false --num_threads=1 --minloglevel=2"
    )
    return folder / "spiece.model"


def seeded(net, seed):
    """The net with weights of which none is 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            spread = 0.1 if parameter.ndim > 1 else 0.3
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def under(prefix, net):
    return {f"{prefix}{key}": value.clone() for key, value in net.state_dict().items()}


def bert(vocabulary, context):
    return BertConfig(vocabulary, context, 2, 64, 96, 3, 1)


def medclip_checkpoint(folder):
    """`pytorch_model.bin` and `vocab.txt`: Swin with the published number of stages at 224 pixels, three layers of BERT."""
    pieces = word_pieces()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    image = seeded(medclip.SwinTower(swin.SwinConfig(224, 4, 8, 7, (2, 1, 1, 1), (1, 1, 2, 2)), OUT), 1)
    text = seeded(medclip.TextTower(bert(len(pieces), 128), OUT), 2)
    state = {**under("vision_model.", image), **under("text_model.", text), "logit_scale": torch.tensor(2.6593)}
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def biomedclip_checkpoint(folder):
    """`open_clip_pytorch_model.bin` and `vocab.txt`, at 32 pixels."""
    pieces = word_pieces()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    image = seeded(biomedclip.ImageTower(biomedclip.Trunk(64, 8, 17, 2, 128), 64, OUT), 3)
    text = seeded(biomedclip.TextTower(bert(len(pieces), 256), 40, OUT), 4)
    state = {**under("visual.", image), **under("text.", text), "logit_scale": torch.tensor(4.4454)}
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder / "open_clip_pytorch_model.bin"


def medsiglip_checkpoint(folder):
    """`model.safetensors` and `spiece.model`, at 56 pixels with 16 tokens of text."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(sentence_pieces(folder)))
    image = seeded(siglip.ImageTower(64, 14, 16, 2, 96), 5)
    text = seeded(siglip.TextTower(pieces.get_piece_size(), 16, 64, 2, 96, 64), 6)
    scales = {"logit_scale": torch.tensor([2.5]), "logit_bias": torch.tensor([-3.0])}
    save_file({**under("vision_model.", image), **under("text_model.", text), **scales}, folder / "model.safetensors")
    return folder / "model.safetensors"
