"""What the scenarios share: the server, the bare engines, the pictures with their golden masks, and how long to measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path

import numpy as np

from serving.bench import asking, bare, wire
from serving.bench.asking import Ask, Said
from serving.bench.load import Dial, ask_once, run
from serving.bench.pictures import Picture, Prompt, several
from serving.bench.server import Server
from serving.client import decode
from serving.errors import SetupError

FRESH = 1_000_000
"""Pictures from this seed on are new to the server."""


@dataclass(frozen=True)
class Known:
    """A picture that the server has encoded, and the run lengths of each prompt's mask as an idle server answered."""

    picture: Picture
    image_id: str
    goldens: tuple[bytes, ...]

    def asks(self, said: Said = asking.NOTHING_SAID, kind: str = "prompt") -> list[Ask]:
        """Its session's prompts by handle."""
        prompts = zip(self.picture.prompts, self.goldens, strict=True)
        return [asking.by_handle(self.image_id, prompt, said, kind, golden) for prompt, golden in prompts]

    def inline(self, number: int, said: Said = asking.NOTHING_SAID, kind: str = "inline") -> Ask:
        """One of its prompts with the image itself."""
        number %= len(self.goldens)
        return asking.inline(self.picture.png, self.picture.prompts[number], said, kind, golden=self.goldens[number])


@dataclass
class Bench:
    """`seconds`: of one measured stretch; `repeats`: interleaved; `quick`: leave out what only a whole run needs."""

    server: Server
    repository: Path
    cache: Path
    say: Callable[[str], None]
    seconds: float = 10.0
    repeats: int = 5
    quick: bool = False
    soak_s: float = 600.0
    home: Path = Path()
    _fresh: int = field(default_factory=lambda: FRESH + int(time.time()) % 10_000_000 * 100)

    def dial(self, front: str = "http") -> Dial:
        """How to get a line to the server."""
        return lambda: wire.line(front, self.server.http_url, self.server.grpc_address)

    @cached_property
    def segmenter(self) -> bare.Segmenter:
        """The bare engines, opened when first needed."""
        self.say("opening the bare engines")
        return bare.Segmenter(self.repository)

    @cached_property
    def known(self) -> tuple[Known, ...]:
        """Four pictures, encoded, with golden masks that were compared with the bare engines'."""
        return learn(self, several(2 if self.quick else 4))

    def fresh(self, count: int) -> list[Picture]:
        """Pictures that the server has not seen; drawn and packed already."""
        found = several(count, self._fresh)
        self._fresh += count
        for picture in found:
            _ = picture.png
        return found

    @cached_property
    def bare_prompts(self) -> Callable[[int], object]:
        """The bare decoder on the known pictures' prompts, in the order in which the server gets them."""
        prepared = []
        for known in self.known:
            features = self.segmenter.encode(bare.prepare(known.picture.pixels)[0])
            sides = known.picture.side_px
            prepared += [(features, *bare.tokens(p.box, p.points, sides)) for p in known.picture.prompts]
        return lambda n: self.segmenter.decode(*prepared[n % len(prepared)])

    def bare_first(self, picture: Picture) -> None:
        """One bare encode and one bare decode."""
        features = self.segmenter.encode(bare.prepare(picture.pixels)[0])
        prompt = picture.prompts[0]
        self.segmenter.decode(features, *bare.tokens(prompt.box, prompt.points, picture.side_px))

    def prompts(self, workers: int, said: Said = asking.NOTHING_SAID) -> list[Iterator[Ask]]:
        """An endless stream of warm prompts for each worker, every one starting elsewhere."""
        asks = [ask for known in self.known for ask in known.asks(said)]
        step = max(len(asks) // workers, 1)
        return [cycle(asks[n * step % len(asks) :] + asks[: n * step % len(asks)]) for n in range(workers)]


def learn(bench: Bench, pictures: list[Picture]) -> tuple[Known, ...]:
    """Encode, ask every prompt once while nothing else runs, and compare with the bare engines. Raises SetupError."""
    bench.say(f"taking golden masks on {len(pictures)} pictures")

    async def ask_all() -> list[Known]:
        line = wire.line("http", bench.server.http_url, bench.server.grpc_address)
        found = []
        for picture in pictures:
            sample, reply = await ask_once(line, asking.encode(picture.png), 0.0)
            if reply is None or not sample.ok:
                raise SetupError(f"the server does not encode a picture: {sample.code}")
            image_id = reply.image_id()
            goldens = []
            for prompt in picture.prompts:
                sample, reply = await ask_once(line, asking.by_handle(image_id, prompt), 0.0)
                if reply is None or not sample.ok:
                    raise SetupError(f"the server does not answer a prompt: {sample.code}")
                goldens.append(reply.counts())
            found.append(Known(picture, image_id, tuple(goldens)))
        await line.close()
        return found

    found = tuple(run(ask_all()))
    worst = min(_agreement(bench.segmenter, known) for known in found)
    if worst < 0.98:
        raise SetupError(f"the server's masks are not the bare engines': IoU {worst:.3f}")
    bench.say(f"golden masks agree with the bare engines: IoU at least {worst:.4f}")
    return found


def _agreement(segmenter: bare.Segmenter, known: Known) -> float:
    tensor, content = bare.prepare(known.picture.pixels)
    features, side = segmenter.encode(tensor), known.picture.side_px

    def agree(prompt: Prompt, counts: bytes) -> float:
        made = segmenter.decode(features, *bare.tokens(prompt.box, prompt.points, side))
        ours = bare.finish(made["mask"][0, 0, 0], content, (side, side))
        theirs = decode.rle(counts, side, side)
        union = int(np.logical_or(ours, theirs).sum())
        return int(np.logical_and(ours, theirs).sum()) / union if union else 1.0

    return min(agree(prompt, counts) for prompt, counts in zip(known.picture.prompts, known.goldens, strict=True))
