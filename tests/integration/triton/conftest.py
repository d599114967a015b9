"""One Triton with LiteMedSAM's engines and variants of them, for all tests of this folder; its arena is empty at each begin."""

from dataclasses import replace

import pytest
from engine_node import LONG_S, PARTS, REPOSITORY, Node, started

from serving import shm
from serving.build import config
from serving.engines.triton import TritonServer
from serving.families.litemedsam.engines import specs
from serving.manifest import read_all


@pytest.fixture(scope="session")
def manifest():
    return read_all(REPOSITORY, ("litemedsam",))[0]


def variants(manifest):
    """Further engines on the built artefacts: (name, part, configuration).

    "region_": Features as tensors, by the very text that a native backend gets; the encoder's file takes one image a call.
    """
    for part in PARTS[:2]:
        spec = replace(specs(manifest)[part], max_batch=1)
        native = config.tensorrt(spec).replace("tensorrt", "openvino").replace("model.plan", "model.xml")
        yield f"region_{part}", part, native.replace("KIND_GPU", "KIND_CPU")


@pytest.fixture(scope="session")
def repository(tmp_path_factory, manifest):
    """The built engines and the variants of them."""
    made = tmp_path_factory.mktemp("repository")
    for part in PARTS:
        (made / specs(manifest)[part].name).symlink_to(REPOSITORY / specs(manifest)[part].name)
    for name, part, text in variants(manifest):
        spec = specs(manifest)[part]
        assert "READS" not in text or not name.startswith("region_")
        for path in (made / name / "config.pbtxt", made / name / "configs" / "cpu.pbtxt"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(f'name: "{spec.name}"', f'name: "{name}"'))
        (made / name / "1").symlink_to(REPOSITORY / spec.name / "1")
    return made


@pytest.fixture(scope="session")
def parts(tmp_path_factory, repository, manifest):
    models = [specs(manifest)[part].name for part in PARTS] + [name for name, *_ in variants(manifest)]
    with started(tmp_path_factory.mktemp("triton"), models, repository=repository) as made:
        yield made


@pytest.fixture(scope="session")
def triton(parts):
    return parts[0]


@pytest.fixture
async def node(parts, manifest):
    triton, arena = parts
    server = TritonServer(triton.grpc_address, LONG_S, arena.nbytes)
    yield Node(triton, arena, server, manifest)
    await server.close()
    for index in range(arena.count):  # each test begins with an empty arena
        arena.drop(shm.Slot(arena.region, index, int(arena._slots.table[index]["generation"]), 0))
