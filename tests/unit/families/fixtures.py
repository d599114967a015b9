"""What the family tests build on: tools without a pool, pictures as raw bytes, requests."""

import numpy as np

from serving.domain.image import EncodedImage, Frame, Image, RawLayout
from serving.domain.request import Deadline, Request
from serving.engines.fake import FakeEngine
from serving.families.family import Tools
from serving.manifest import EngineRecord, Manifest


def raw_image(pixels):
    """(rows, columns) or (rows, columns, 3) uint8 as a client would send it."""
    return EncodedImage(pixels.tobytes(), "", RawLayout("uint8", pixels.shape))


def decode(image):
    pixels = np.frombuffer(image.data, np.uint8).reshape(image.raw.shape)
    return Image(pixels, Frame((pixels.shape[1], pixels.shape[0]), spacing_mm=(0.5, 0.5)))


async def run(function):
    return function()


def tools(functions, *, decode=decode, store=None, opened=None):
    """Tools whose engines answer with `functions[part]` and share what they hold; `opened`: (part, version) -> FakeEngine."""
    held = {}

    def engine(spec, record):
        part = next(part for part in functions if record.name.endswith(part))
        fake = FakeEngine(spec, lambda inputs: functions[part](inputs, record), held=held)
        if opened is not None:
            opened[part, record.version] = fake
        return fake

    return Tools(engine, decode, run, store)


def manifest(family, pool, parts, options=None, versions=("1",)):
    engines = {
        part: tuple(EngineRecord(name=f"{family}_{part}", version=v, digest=f"{part}-{v}") for v in versions) for part in parts
    }
    return Manifest(
        model=family, family=family, pool=pool, digest="d" * 64, source="s", licence="l", engines=engines, options=options or {}
    )


def request(task, *, deadline_s=30.0, tenant="t"):
    return Request(task, Deadline.after(deadline_s), "r", tenant=tenant)
