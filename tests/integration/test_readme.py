"""What the README and the page of the interface print runs: Python, and the three ways to send an image by curl."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from serving.demonstration.draw import draw

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
README, API = ROOT / "README.md", ROOT / "docs" / "api.md"
HERE, HERE_GRPC = "http://127.0.0.1:8000", "127.0.0.1:9000"
LIVER_PX, OTHERWISE_PX = 9479, 500
"""Of the mask that the page shows, and how far another window or processor may be off."""


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def ran(command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, **more).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the page names, but for what its first command fetches."""
    made = tmp_path_factory.mktemp("page")
    for number, name in enumerate(("a.png", "b.png")):
        cv2.imwrite(str(made / name), draw(90_000_042 + number, frozenset()).pixels)
    return made


def sending(server):
    """The block that copies a picture and sends it, for this server and this interpreter."""
    (block,) = [each for each in blocks(API, "sh") if "examples_overlay.dcm" in each]
    return block.replace(HERE, server.http_url).replace("$(python -c", f"$({sys.executable} -c")


def test_the_client_code_runs(server):
    (code,) = blocks(README, "python")
    assert HERE in code
    assert "(512, 512)" in ran([sys.executable, "-c", code.replace(HERE, server.http_url)])


def test_the_interface_s_python_runs(server, folder):
    subprocess.run(["bash", "-ec", sending(server).split("\n\n")[0]], cwd=folder, check=True)
    over_http, session = blocks(API, "python")
    told = ran([sys.executable, "-c", over_http.replace(HERE, server.http_url)], cwd=folder)
    (area,) = re.findall(r"\(300, 484\) (\d+) ", told)
    assert abs(int(area) - LIVER_PX) < OTHERWISE_PX
    told = ran([sys.executable, "-c", session.replace(HERE_GRPC, server.grpc_address)], cwd=folder)
    assert len(told.split()) == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_three_ways_to_send_an_image_run(server, folder):
    if "--json" not in ran(["curl", "--help", "all"]):
        pytest.skip("this curl has no --json")
    told = ran(["bash", "-ec", sending(server)], cwd=folder, env=os.environ)
    areas = [int(area) for area in re.findall(r'"area_px":(\d+),', told)]
    assert len(areas) == 3
    assert all(abs(area - LIVER_PX) < OTHERWISE_PX for area in areas)


def test_the_commands_are_in_the_first_screen():
    first = README.read_text().splitlines()[:25]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)
    assert any("Not a medical device" in line for line in first)
