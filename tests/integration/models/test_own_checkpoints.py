"""A user's MedCLIP, BiomedCLIP and MedSigLIP, small and seeded, built by the command and asked over the running server."""

import os
import subprocess
import sys

import numpy as np
import pytest
import small_checkpoints
import torch
from pictures import png
from running import Medserve

from serving.build import weights
from serving.build.build import build
from serving.build.nets import biomedclip, medclip, siglip
from serving.client import Client, MedserveError
from serving.domain.image import Frame, Image
from serving.families import centre_crop
from serving.families.medclip import preprocess as medclip_preprocess
from serving.families.medclip.sentences import drawn
from serving.families.medsiglip import preprocess as medsiglip_preprocess
from serving.families.subwords import WordPieceTokenizer
from serving.families.tokenizer import without_padding
from serving.manifest import read_all

pytestmark = pytest.mark.integration
LABELS = ["Edema", "pleural effusion", "a stable heart"]
PIXELS = np.random.default_rng(0).integers(0, 256, (150, 240)).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    makers = {name: getattr(small_checkpoints, f"{name}_checkpoint") for name in ("medclip", "biomedclip", "medsiglip")}
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in makers.items()}


@pytest.fixture(scope="module")
def repository(checkpoints, tmp_path_factory):
    """All three: one as the command builds it, the others as the command's function does."""
    folder = tmp_path_factory.mktemp("repository")
    command = [sys.executable, "-m", "serving", "models", "build", "medclip", "--checkpoint", str(checkpoints["medclip"])]
    command += ["--preprocessing", "evaluation", "--option", "sentences=4"]
    environ = {**os.environ, "MEDSERVE_REPOSITORY__PATH": str(folder)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "medclip  text_encoder" in done.stdout
    for name in ("biomedclip", "medsiglip"):
        build(name, folder, folder, checkpoints=[checkpoints[name]], say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def own_server(repository):
    with Medserve(MEDSERVE_REPOSITORY__PATH=str(repository), MEDSERVE_FEATURES__BUDGET_BYTES="1048576") as running:
        yield running


@pytest.fixture(scope="module")
def client(own_server):
    with Client(own_server.http_url) as opened:
        yield opened


def picture():
    return Image(PIXELS, Frame((PIXELS.shape[1], PIXELS.shape[0])))


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_the_records_say_what_was_chosen_and_how_close_the_engines_are(repository):
    records = {manifest.model: manifest for manifest in read_all(repository)}
    chosen = {key: records["medclip"].options[key] for key in ("preprocessing", "ensemble", "sentences", "seed")}
    assert chosen == {"preprocessing": "evaluation", "ensemble": "mean", "sentences": 4, "seed": 42}
    assert records["medsiglip"].options["preprocessing"] == "container"
    for name in ("medclip", "biomedclip", "medsiglip"):
        for (record,) in records[name].engines.values():
            assert record.parity["embedding_max_abs"] <= 1e-5 * record.parity["embedding_scale"]


@torch.inference_mode()
def test_medclip_over_its_published_sentences(checkpoints, client):
    model = medclip.load(weights.read(checkpoints["medclip"]))
    pixels = medclip_preprocess.prepare(picture(), 224, "evaluation")
    image = unit(model.image_encoder(torch.from_numpy(pixels)[None]))
    published = drawn(4, 42)
    tokenizer = WordPieceTokenizer(small_checkpoints.word_pieces())
    wanted = []
    for texts in (published["Edema"], published["Pleural Effusion"], ("a stable heart",)):
        tokens = torch.from_numpy(without_padding(tokenizer.batch(texts, 77)))
        wanted.append(float((model.scale * image @ unit(model.text_encoder(tokens)).T).mean()))
    found = client.classify([png(PIXELS)], LABELS, model="medclip")
    assert found.scoring == "medclip-logits-mean"
    assert np.abs(found.scores[0] - np.array(wanted)).max() <= 1e-3


@torch.inference_mode()
def test_biomedclip_reads_labels_in_the_published_sentence(checkpoints, client):
    model = biomedclip.load(weights.read(checkpoints["biomedclip"]))
    pixels = centre_crop.prepare(picture(), model.image_size)
    image = unit(model.image_encoder(torch.from_numpy(pixels)[None]))
    tokenizer = WordPieceTokenizer(small_checkpoints.word_pieces())
    tokens = torch.from_numpy(without_padding(tokenizer.batch([f"this is a photo of {label}" for label in LABELS], 256)))
    wanted = (model.scale * image @ unit(model.text_encoder(tokens)).T).softmax(dim=-1)[0].numpy()
    found = client.classify([png(PIXELS)], LABELS, model="biomedclip")
    assert found.scoring == "clip-softmax"
    assert np.abs(found.scores[0] - wanted).max() <= 1e-4


@torch.inference_mode()
def test_medsiglip_scores_each_label_by_itself(checkpoints, client):
    model = siglip.load(weights.read(checkpoints["medsiglip"]))
    pixels = medsiglip_preprocess.prepare(picture(), 56, "container")
    image = unit(model.image_encoder(torch.from_numpy(pixels)[None]))
    vectors = client.embed(texts=LABELS, model="medsiglip").vectors
    wanted = torch.sigmoid(model.scale * image @ torch.from_numpy(vectors).T + model.bias)[0].numpy()
    found = client.classify([png(PIXELS)], LABELS, model="medsiglip")
    assert found.scoring == "siglip-sigmoid"
    assert np.abs(found.scores[0] - wanted).max() <= 1e-4
    alone = client.classify([png(PIXELS)], LABELS[1:2], model="medsiglip")
    assert abs(float(alone.scores[0, 0]) - float(found.scores[0, 1])) <= 1e-5


def test_the_list_of_models_says_how_each_was_built(client):
    found = {model.name: model for model in client.models()}
    assert set(found) == {"medclip", "biomedclip", "medsiglip"}
    assert not any(model.demonstration for model in found.values())


def test_negative_templates_are_refused(client):
    with pytest.raises(MedserveError) as caught:
        client.classify([png(PIXELS)], ["Edema"], templates=["{}"], negative_templates=["no {}"], model="medclip")
    assert caught.value.code == "invalid"
