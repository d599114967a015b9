"""`medserve models verify` on what `make build` made, and on a copy that was tampered with."""

import json
import os
import subprocess
import sys

import pytest

from serving.settings import load

pytestmark = pytest.mark.integration


def verify(name, **environ):
    command = [sys.executable, "-m", "serving", "models", "verify", name]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=400, check=False)


def test_a_built_model_passes_every_check():
    done = verify("litemedsam")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for part in ("image_encoder", "mask_decoder", "mask_refiner"):
        for check in ("artefact", "gate", "parity recorded", "parity recomputed", "warm request"):
            assert any(line.startswith(f"ok    {check} litemedsam_{part}/1: ") for line in lines), (check, part, done.stdout)
    assert not any(line.startswith("fail") for line in lines)


def test_what_was_tampered_with_fails_and_says_which(tmp_path):
    """The text tower's engine under the record of another, and a record that claims a parity it has not."""
    built = load().repository.path
    record = json.loads((built / "synthetic-cxr-clip.json").read_text())
    for part, found in record["engines"].items():
        (tmp_path / found[0]["name"]).symlink_to(built / found[0]["name"])
        found[0]["digest"] = "0" * 64 if part == "text_encoder" else found[0]["digest"]
        if part == "image_encoder":
            found[0]["parity"]["embedding_max_abs"] = found[0]["parity"]["embedding_scale"]
    (tmp_path / "synthetic-cxr-clip.json").write_text(json.dumps(record))
    done = verify("synthetic-cxr-clip", MEDSERVE_REPOSITORY__PATH=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    failed = sorted(line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("fail"))
    assert failed == [
        "fail  artefact synthetic_cxr_text_encoder/1",
        "fail  parity recorded synthetic_cxr_image_encoder/1",
    ], done.stdout
    assert "build it again" in done.stdout
    assert verify("nothing", MEDSERVE_REPOSITORY__PATH=str(tmp_path)).stderr.startswith("medserve: model nothing is not built")
