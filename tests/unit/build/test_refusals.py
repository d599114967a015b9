"""Checkpoints that are damaged, of another architecture or more than tensors: said in one line, with nothing half-made."""

import pickle

import checkpoints
import pytest
import torch

from serving.build.build import build
from serving.build.catalogue import ENTRIES
from serving.errors import SetupError

OWN = [name for name, entry in ENTRIES.items() if entry.weights != "package"]


PROJECTIONS = (".attn.proj.weight", ".c_proj.weight", ".out_proj.weight", ".attention.output.dense.weight")
"""Ends of the keys of what follows an attention: nobody reads the network's sizes from these."""


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


@pytest.fixture(scope="module", params=OWN)
def state(request):
    """(entry, its seeded state dict)."""
    return request.param, dict(checkpoints.checkpoint(request.param)())


@pytest.fixture
def refused(tmp_path, state):
    """Builds an entry from what is written to `tmp_path/w.pth`, and gives what was said; nothing is left behind."""
    name, _ = state
    repository, home = tmp_path / "repository", tmp_path / "home"
    repository.mkdir()

    def refused(write):
        write(tmp_path / "w.pth")
        chosen = (ENTRIES[name].preprocessings or ("",))[0]
        with pytest.raises(SetupError) as said:
            build(
                name,
                home,
                repository,
                checkpoints=[tmp_path / "w.pth"],
                preprocessing=chosen,
                tokenizer=checkpoints.tokenizer(name),
                say=lambda line: None,
            )
        assert list(repository.iterdir()) == []
        assert not home.exists()
        assert "\n" not in str(said.value)
        return str(said.value)

    return refused


def a_projection(state):
    """A matrix from which nobody reads the network's sizes."""
    return next(key for key, value in state.items() if (key.endswith(PROJECTIONS) or key == "fc2.weight") and value.ndim == 2)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(state, refused):
    key = a_projection(state[1])
    said = refused(lambda path: torch.save({**state[1], key: torch.zeros(3, 5)}, path))
    assert key in said
    assert "(3, 5)" in said
    assert str(tuple(state[1][key].shape)) in said


def test_a_missing_tensor_is_named(state, refused):
    key = a_projection(state[1])
    assert key in refused(lambda path: torch.save({k: v for k, v in state[1].items() if k != key}, path))


def test_a_tensor_that_is_no_tensor_is_named(state, refused):
    key = a_projection(state[1])
    assert key in refused(lambda path: torch.save({**state[1], key: 0.5}, path))


def test_another_architecture_is_refused(refused):
    said = refused(lambda path: torch.save({"features.conv0.weight": torch.zeros(4, 3, 3, 3)}, path))
    assert "checkpoint" in said


def test_damaged_files_and_pickles_with_code_are_refused(state, refused):
    def cut(path):
        torch.save(state[1], path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert "damaged" in refused(cut)
    assert "more than tensors" in refused(lambda path: torch.save({"model": Runs()}, path))
    assert "more than tensors" in refused(lambda path: path.write_bytes(pickle.dumps(Runs())))
    assert "not a state dict" in refused(lambda path: torch.save(torch.zeros(3), path))
