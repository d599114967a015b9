"""The models' pages are what the declarations say: `medserve models docs` writes them."""

import re

import pytest

from serving.build.catalogue import ENTRIES
from serving.build.docs import pages, write
from serving.manifest import EngineRecord, Manifest
from serving.settings import CHECKOUT

FOLDER = CHECKOUT / "docs" / "models"


def test_the_pages_are_up_to_date():
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert committed == pages(), "run `medserve models docs`"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_page_names_each_engine_with_a_committed_configuration(name):
    engines = set(re.findall(r"^\| `(\w+)` \| \d+ \|", (FOLDER / f"{name}.md").read_text(), flags=re.MULTILINE))
    assert engines
    for engine in engines:
        assert (CHECKOUT / "model_repository" / engine / "config.pbtxt").exists()


def test_records_are_told_of_where_they_are_given_and_pages_of_what_is_gone_are_removed(tmp_path):
    gate = {"kind": "mask_iou", "mean": 0.9934, "prompts": 120, "passed": True}
    parity = {"mask_max_abs": 2e-4, "mask_scale": 40.0}
    engine = EngineRecord(name="litemedsam_mask_decoder", digest="ab" * 32, precision="bf16", parity=parity, gate=gate)
    engines = {"mask_decoder": (engine,)}
    record = Manifest(
        model="litemedsam", family="litemedsam", pool="adaptive", digest="d", source="s", licence="l", engines=engines
    )
    page = pages((record,))["litemedsam.md"]
    row = "| `litemedsam` | `litemedsam_mask_decoder/1` | bf16 | `abababababab` | 5.0e-06 | mean 0.9934, prompts 120 |"
    assert row in page
    assert row not in pages()["litemedsam.md"]
    write(tmp_path)
    (tmp_path / "gone.md").write_text(pages()["clip.md"])
    (tmp_path / "own.md").write_text("# not made here\n")
    assert write(tmp_path) == ["gone.md"]
    assert (tmp_path / "own.md").exists()
