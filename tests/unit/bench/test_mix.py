from collections import Counter
from itertools import islice
from types import SimpleNamespace

from serving.bench.mix import SHARES, Mix


def test_the_mix_has_its_shares_and_never_sends_an_image_twice():
    known = SimpleNamespace(asks=lambda said: [SimpleNamespace(kind="prompt", body=b"handle")])
    mix = Mix(SimpleNamespace(known=[known], say=print))
    asks = list(islice(mix.asks(3), 256))
    counts = Counter(ask.kind for ask in asks)
    assert all(abs(counts[kind] / len(asks) - share) < 0.1 for kind, share in SHARES.items())
    bodies = [ask.body for ask in asks if ask.kind != "prompt"]
    assert len(set(bodies)) == len(bodies)
