"""The text half over the running server: the demonstration towers by both procedures, and what marks them."""

import numpy as np
import pytest
from pictures import png

from serving.client import Client, GrpcClient, MedserveError
from serving.demonstration.captions import held_out
from serving.demonstration.draw import draw
from serving.demonstration.labels import LABELS

pytestmark = pytest.mark.integration
SEED = 60_000_000


def auc(scores, truth):
    order = scores[truth][:, None] - scores[~truth][None]
    return (order > 0).mean() + 0.5 * (order == 0).mean()


def test_unseen_drawings_are_told_apart_in_unseen_words(client):
    drawings = [draw(SEED + n) for n in range(96)]
    assert f"positive for {LABELS[0]}" in held_out(LABELS[0], present=True)
    scores = []
    for start in range(0, len(drawings), 32):
        images = [png(drawing.pixels) for drawing in drawings[start : start + 32]]
        found = client.classify(
            images,
            LABELS,
            templates=["positive for {}"],
            negative_templates=["negative for {}"],
            model="synthetic-cxr-chexzero",
        )
        scores.append(found.scores)
    table = np.concatenate(scores)
    areas = [auc(table[:, n], np.array([label in d.findings for d in drawings])) for n, label in enumerate(LABELS)]
    assert np.mean(areas) >= 0.90


def test_answers_and_the_list_of_models_say_that_it_is_a_demonstration(client):
    answer = client.classify([png(draw(SEED).pixels)], LABELS[:2])
    assert answer.model.demonstration
    marked = {model.name: model.demonstration for model in client.models()}
    assert marked == {"litemedsam": False, "synthetic-cxr-chexzero": True, "synthetic-cxr-clip": True}


def test_the_default_model_of_labels_and_its_scoring(client):
    found = client.classify([png(draw(SEED).pixels)], ["edema", "lung nodule"], model="synthetic-cxr-clip")
    assert found.scoring == "clip-softmax"
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)


def test_both_fronts_give_the_same_scores(server):
    image = png(draw(SEED + 1).pixels)
    with Client(server.http_url) as http, GrpcClient(server.grpc_address) as grpc:
        one, other = http.classify([image], LABELS), grpc.classify([image], LABELS)
    assert np.abs(one.scores - other.scores).max() <= 1e-6


def test_embeddings_score_as_classify_does(client):
    image = png(draw(SEED + 2).pixels)
    picture = client.embed(images=[image], model="synthetic-cxr-clip").vectors
    texts = client.embed(texts=["edema", "lung nodule"], model="synthetic-cxr-clip").vectors
    assert np.linalg.norm(texts, axis=1) == pytest.approx(1, abs=1e-5)
    scores = client.classify([image], ["edema", "lung nodule"], model="synthetic-cxr-clip").scores[0]
    assert (picture @ texts.T)[0].argmax() == scores.argmax()


def test_labels_to_a_visual_model_are_refused_with_what_would_be_right(client):
    with pytest.raises(MedserveError) as caught:
        client.classify([png(draw(SEED).pixels)], ["edema"], model="litemedsam")
    assert caught.value.code == "invalid"
    assert "synthetic-cxr" in str(caught.value)
