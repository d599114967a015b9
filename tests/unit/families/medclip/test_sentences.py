"""The published sentences, and the draw that `random.seed` makes of them."""

import random
from itertools import product

from serving.families.medclip.sentences import CHEXPERT, COVID, RSNA, drawn, whole


def test_counts_are_the_published_ones():
    assert {name: len(texts) for name, texts in whole(CHEXPERT).items()} == {
        "Atelectasis": 210,
        "Cardiomegaly": 15,
        "Consolidation": 192,
        "Edema": 18,
        "Pleural Effusion": 54,
    }
    assert {name: len(texts) for name, texts in (whole(COVID) | whole(RSNA)).items()} == {"COVID": 12, "Pneumonia": 312}


def test_words_are_put_together_as_published_blanks_included():
    found = whole(CHEXPERT)
    assert found["Atelectasis"][0] == " subsegmental atelectasis at the mid lung zone"
    assert found["Atelectasis"][-1] == "minimal residual atelectasis at the right lower lobe"
    assert found["Edema"][1] == " trace interstitial edema "
    assert found["Pleural Effusion"][4] == " right subpulmonic pleural effusion"
    assert found["Consolidation"][29] == " patchy consolidation at the right uppper lobe"
    assert whole(COVID)["COVID"][0] == "patchy ground glass opacity in peripheral"
    assert whole(RSNA)["Pneumonia"][-1] == "  "


def test_the_draw_is_that_of_a_seeded_module():
    random.seed(42)
    wanted = {}
    for name, (first, second, third) in CHEXPERT.items():
        texts = [f"{a} {b} {c}" for a, b, c in product(first, second, third)]
        wanted[name] = tuple(random.sample(texts, 10)) if len(texts) > 10 else tuple(texts)
    found = drawn(10, 42)
    assert {name: found[name] for name in CHEXPERT} == wanted
    random.seed(42)
    assert found["COVID"] == tuple(random.sample(whole(COVID)["COVID"], 10))
    assert drawn(10, 42) == found != drawn(10, 43)


def test_all_sentences_where_there_are_no_more_or_none_is_left_out():
    assert drawn(15, 1)["Cardiomegaly"] == whole(CHEXPERT)["Cardiomegaly"]
    assert drawn(0, 1) == whole(CHEXPERT) | whole(COVID) | whole(RSNA)
