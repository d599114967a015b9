"""OpenAI publishes CLIP as TorchScript: its tensors are read without running or compiling what lies beside them."""

import pickle
import zipfile

import pytest
import torch
from torch import nn

from serving.build import torchscript, weights
from serving.build.nets.clip import ClipConfig, create, load
from serving.errors import SetupError

SIZES = ClipConfig(16, 32, 8, 64, 1, 1, 12, 40, 64, 1, 1)


class Published(nn.Module):
    """OpenAI's names: the text tower's at the top, sizes as integer buffers."""

    def __init__(self, pair):
        super().__init__()
        self.visual = Bag(pair.image_encoder)
        for name, value in pair.text_encoder.state_dict().items():
            if "." not in name:
                self.register_parameter(name, nn.Parameter(value))
        for name, child in pair.text_encoder.named_children():
            self.add_module(name, Bag(child))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.register_buffer("input_resolution", torch.tensor(32))
        self.register_buffer("context_length", torch.tensor(12))
        self.register_buffer("vocab_size", torch.tensor(40))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Bag(nn.Module):
    """Parameters by name, with nothing to run."""

    def __init__(self, net):
        super().__init__()
        for name, value in net._parameters.items():
            self.register_parameter(name, value)
        for name, child in net.named_children():
            self.add_module(name, Bag(child))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return Published(create(SIZES))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_archive_is_read_as_its_state_dict(published, half, tmp_path):
    path = tmp_path / "ViT.pt"
    scripted = torch.jit.script(published)
    wanted = published.state_dict()
    if half:
        scripted = torch.jit.script(Published(create(SIZES)).half())
        wanted = scripted.state_dict()
    scripted.save(path)
    assert torchscript.is_archive(path)
    found = weights.read(path)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) and found[key].dtype == wanted[key].dtype for key in wanted)
    assert load(found).config == SIZES


def test_a_plain_state_dict_is_no_archive(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "plain.pt")
    assert not torchscript.is_archive(tmp_path / "plain.pt")
    assert weights.read(tmp_path / "plain.pt").keys() == published.state_dict().keys()


class Danger:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [pickle.dumps(Danger()), b"", pickle.dumps({"a": 1}), b"\x80\x02junk"])
def test_what_is_more_than_weights_is_refused_and_not_run(content, tmp_path, capsys):
    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/constants.pkl", b"")
        archive.writestr("bad/data.pkl", content)
    with pytest.raises(SetupError, match=r"bad\.pt is damaged, or holds more than tensors"):
        weights.read(path)
    assert capsys.readouterr().out == ""
