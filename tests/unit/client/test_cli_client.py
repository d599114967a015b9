import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from serving.cli_client import add_client_commands


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scan.png"
    Image.new("L", (64, 48), 90).save(path)
    return path


@pytest.fixture
def run(served):
    app = typer.Typer()
    add_client_commands(app)
    return lambda *args: CliRunner().invoke(app, [*map(str, args), "--url", served.url])


def test_segment(run, picture, tmp_path, served):
    out = tmp_path / "out.png"
    result = run("segment", picture, "--box", "1,2,30,40", "--output", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "object 0  score 0.500" in result.stdout
    with Image.open(out) as drawn:
        assert drawn.size == (64, 48)
    assert served.brain.seen[0].task.image.media_type == "image/png"


def test_segment_as_json(run, picture, served):
    result = run("segment", picture, "--point", "3,4", "--point", "5,6,-", "--json")
    assert json.loads(result.stdout)["masks"][0]["counts"]
    assert [p.positive for p in served.brain.seen[0].task.objects[0].points] == [True, False]


def test_classify(run, picture):
    result = run("classify", picture, "--label", "edema", "--label", "nodule")
    assert result.stdout.splitlines()[1].split() == ["1.0000", "nodule"]
    assert "demonstration" in result.stdout
    assert json.loads(run("classify", picture, "-l", "a", "--json").stdout)["scores"] == [[0.0]]


def test_embed(run, tmp_path):
    out = tmp_path / "vectors.npy"
    assert run("embed", "--text", "a", "--text", "b", "-o", out).exit_code == 0
    np.testing.assert_array_equal(np.load(out), np.eye(8)[:2])


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--box", "1,2,3"], "1,2,3 is not x0,y0,x1,y1"),
        (["--box", "a,b,c,d"], "is not x0,y0,x1,y1"),
        (["--point", "1"], "is not x,y"),
        (["--box", "9,9,1,1"], "invalid: a box needs"),
        ([], "no prompt"),
    ],
)
def test_errors_are_one_line(run, picture, args, word):
    result = run("segment", picture, *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("medserve: ")
    assert result.stderr.count("\n") == 1
    assert word in result.stderr


def test_a_file_that_is_not_there(run, tmp_path):
    result = run("segment", tmp_path / "none.png", "--box", "1,2,3,4")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "No such file" in result.stderr
