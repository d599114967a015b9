"""The generated files are what the .proto generates."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = "serving/edge/proto"


def test_the_generated_files_are_fresh(tmp_path):
    pytest.importorskip("grpc_tools")
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *out, f"{FOLDER}/inference.proto"], cwd=ROOT, check=True
    )
    made = sorted((tmp_path / FOLDER).iterdir())
    assert [path.name for path in made] == ["inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py"]
    for path in made:
        assert path.read_text() == (ROOT / FOLDER / path.name).read_text(), path.name
