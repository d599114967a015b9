"""The real text engine gives for a text without padding what it gives for the whole context: cutting is exact."""

import numpy as np
import pytest

from serving.domain.request import Deadline
from serving.engines.triton import TritonServer
from serving.families.clip.engines import specs
from serving.families.tokenizer import open_tokenizer, without_padding
from serving.local.triton import EmbeddedTriton
from serving.manifest import read_all
from serving.settings import Settings

pytestmark = pytest.mark.integration
REPOSITORY = Settings().repository.path
TEXTS = ("edema", "no pleural effusion", "there is a large nodule in the right upper lobe, no pneumothorax.")


async def test_cutting_padding_off_changes_nothing(tmp_path):
    (manifest,) = read_all(REPOSITORY, ("synthetic-cxr-clip",))
    record = manifest.engines["text_encoder"][0]
    ids = open_tokenizer(manifest.options).batch(TEXTS, manifest.options["context_length"])
    cut = without_padding(ids)
    assert cut.shape[1] < ids.shape[1] / 2
    with EmbeddedTriton(REPOSITORY, (record.name,), tmp_path, start_timeout_s=60) as triton:
        server = TritonServer(triton.grpc_address, 60)
        engine = server.engine(specs(manifest)["text_encoder"], record)
        whole = (await engine.infer({"tokens": ids}, Deadline.after(60)))["embedding"]
        short = (await engine.infer({"tokens": cut}, Deadline.after(60)))["embedding"]
        truncated = (await engine.infer({"tokens": np.ascontiguousarray(cut[:, :-1])}, Deadline.after(60)))["embedding"]
        await server.close()
    assert np.abs(whole - short).max() <= 1e-6 * np.abs(whole).max()
    assert np.abs(whole[-1] - truncated[-1]).max() > 1e-3, "a cut into the longest text would be seen"
