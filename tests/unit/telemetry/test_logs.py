import json
import logging
import warnings

import pytest

from serving.errors import SetupError
from serving.settings import LogSettings, Settings
from serving.telemetry import logs

SECRET = "DOE^JANE"


@pytest.fixture
def begun(tmp_path):
    """Logs of a process that has begun to log, and its lines; the process as it was, afterwards."""
    root, ours = logging.getLogger(), logging.getLogger(logs.ROOT)
    before, level = list(root.handlers), ours.level

    def begin(aloud=False, **chosen):
        logs.begin(Settings(home=tmp_path, logs=LogSettings(**chosen)), aloud=aloud)
        return lambda: (tmp_path / "logs" / "medserve.log").read_text().splitlines()

    yield begin
    logging.captureWarnings(False)
    ours.setLevel(level)
    for handler in [each for each in root.handlers if each not in before]:
        root.removeHandler(handler)
        handler.close()


def test_a_line_is_an_object_with_its_fields(begun):
    lines = begun()
    logging.getLogger("serving.edge.desk").info("request", extra={"fields": {"request_id": "r1", "total_ms": 1.5}})
    (line,) = map(json.loads, lines())
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "logger": "serving.edge.desk", "message": "request", "request_id": "r1", "total_ms": 1.5}


def test_text_is_one_line_whatever_is_said(begun):
    lines = begun(format="text")
    logging.getLogger("serving.x").warning("first\nsecond", extra={"fields": {"code": "a\nb"}})
    (line,) = lines()
    assert line.endswith(r'warning serving.x first second code="a\nb"')


def test_of_an_exception_the_type_and_the_place_are_kept_and_not_what_it_says(begun):
    lines = begun()
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as exc:
            raise KeyError(SECRET) from exc
    except KeyError:
        logging.getLogger("serving.x").exception("request %s failed", "r1")
    (line,) = lines()
    assert SECRET not in line
    error = json.loads(line)["error"]
    assert error[0] == "KeyError"
    assert "from" in error
    assert "ValueError" in error
    assert any("test_logs.py" in place for place in error)


def test_what_readers_of_files_say_is_withheld(begun):
    lines = begun()
    logging.getLogger("pydicom.dataset").warning("Invalid value for VR PN: %r", SECRET)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"The value {SECRET!r} is odd", UserWarning, stacklevel=1)
    assert len(lines()) == 2
    assert all("withheld" in line and SECRET not in line for line in lines())


def test_the_level_is_the_settings(begun):
    lines = begun(level="warning")
    logging.getLogger("serving.edge.desk").info("request")
    assert lines() == []


def test_warnings_are_said_aloud_where_somebody_looks_on(begun, capsys):
    lines = begun(aloud=True)
    logging.getLogger("serving.x").info("quietly")
    logging.getLogger("serving.x").warning("aloud")
    assert len(lines()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith("warning serving.x aloud")


def test_a_full_file_is_put_aside_and_no_line_is_lost(begun, tmp_path):
    lines = begun(max_bytes=300)
    for number in range(4):
        logging.getLogger("serving.x").info("line %d %s", number, "x" * 100)
    aside = (tmp_path / "logs" / "medserve.log.1").read_text().splitlines()
    assert [json.loads(line)["message"].split()[1] for line in aside + lines()] == ["0", "1", "2", "3"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(SetupError, match=r"logs\.to"):
        logs.begin(Settings(home=tmp_path))
