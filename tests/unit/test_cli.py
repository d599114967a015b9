"""The command line's entry point: what fails is one line."""

import pytest

from serving import cli
from serving.errors import SetupError


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            ModuleNotFoundError("No module named 'ray'", name="ray"),
            "this needs ray, which a light client does not have: `make setup`",
        ),
        (SetupError("no model is built"), "no model is built"),
    ],
)
def test_what_is_missing_is_one_line(monkeypatch, capsys, failure, said):
    def fail():
        raise failure

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch):
    def fail():
        raise ModuleNotFoundError("No module named 'serving.gone'", name="serving.gone")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main()
