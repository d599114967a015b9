import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from serving.cli_client import add_client_commands
from serving.router import dispatch
from tests.unit.edge import fakes


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


def test_a_picture_that_cannot_be_written_does_not_take_the_answer_along(run, picture, tmp_path):
    result = run("segment", picture, "--box", "1,2,30,40", "--output", tmp_path / "no folder" / "out.png")
    assert "object 0  score 0.500" in result.stdout
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_segment_as_json(run, picture, served):
    result = run("segment", picture, "--point", "3,4", "--point", "5,6,-", "--json", "--deadline", "200")
    assert json.loads(result.stdout)["masks"][0]["counts"]
    assert [p.positive for p in served.brain.seen[0].task.objects[0].points] == [True, False]
    assert 100 < served.brain.seen[0].deadline.remaining_s() <= 200


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


def test_segment_volume(run, tmp_path, served):
    path, out = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    path.write_bytes(b"V")
    result = run("segment-volume", path, "--box", "1,2,1,20,30,3", "-o", out, "--window", "40,400")
    assert (result.exit_code, result.stderr) == (0, "medserve: slice 5, 6 of 6\n")
    assert "object 0  12 voxels  slices 1 to 3" in result.stdout
    assert "object 1  0 voxels  nowhere" in result.stdout
    assert out.read_bytes() == b"label map of V"
    assert served.brain.seen[0].task.volume.media_type == "application/nifti"


def test_segment_volume_by_names_counts_the_search_too(run, tmp_path, monkeypatch):
    monkeypatch.setattr(fakes, "SERVED", (replace(fakes.SERVED[0], prompts=(dispatch.CLASSES,)),))
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"V")
    result = run("segment-volume", path, "--class", "liver", "--supports", "abdomen", "-o", tmp_path / "mask.nii.gz")
    assert result.stderr.splitlines() == ["medserve: looking for the structures, step 2 of 2", "medserve: slice 5, 6 of 6"]


def test_segment_volume_says_what_is_wrong_in_one_line(run, tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"V")
    result = run("segment-volume", path, "--box", "1,2,1,20,30,9", "-o", tmp_path / "mask.nrrd")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "medserve: invalid: slice 9 is not in the volume, whose slices along axis 2 are 0 to 5\n"
    assert not (tmp_path / "mask.nrrd").exists()


def test_a_folder_of_a_series_is_sent_file_by_file(run, tmp_path, served):
    folder = tmp_path / "series"
    folder.mkdir()
    for n in (2, 1):
        (folder / f"{n}.dcm").write_bytes(b"%d" % n)
    (folder / "DICOMDIR").write_bytes(b"no")
    (folder / ".hidden").write_bytes(b"no")
    result = run("segment-volume", folder, "--box", "1,2,1,20,30,3", "-o", tmp_path / "mask.bits", "--json")
    assert json.loads(result.stdout)["format"] == "packed"
    assert served.brain.seen[0].task.volume.files == (b"1", b"2")
