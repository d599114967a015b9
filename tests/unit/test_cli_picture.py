import builtins
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from serving.cli_picture import shown
from serving.domain.image import EncodedImage, View
from serving.imaging.decode import decode
from serving.settings import LimitSettings


def test_a_dicom_file_is_shown_through_its_window(tmp_path):
    data = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    (tmp_path / "scan.dcm").write_bytes(data)
    pixels = shown(tmp_path / "scan.dcm", None)
    np.testing.assert_array_equal(pixels, decode(EncodedImage(data), LimitSettings()).pixels)
    assert pixels.std() > 20


def test_the_frame_of_the_index(tmp_path):
    data = Path(get_testdata_file("rtdose.dcm")).read_bytes()
    (tmp_path / "dose.dcm").write_bytes(data)
    wanted = decode(EncodedImage(data, view=View(index=3)), LimitSettings()).pixels
    np.testing.assert_array_equal(shown(tmp_path / "dose.dcm", 3), wanted)


def test_the_path_where_the_readers_are_not_installed(tmp_path, monkeypatch: pytest.MonkeyPatch):
    Image.new("L", (4, 5)).save(tmp_path / "in.png")
    real = builtins.__import__

    def light(name, *args, **kwargs):
        if name == "serving.imaging.decode":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", light)
    assert shown(tmp_path / "in.png", None) == tmp_path / "in.png"


def test_the_path_where_the_file_cannot_be_read(tmp_path):
    (tmp_path / "in.dcm").write_bytes(b"x")
    assert shown(tmp_path / "in.dcm", None) == tmp_path / "in.dcm"
