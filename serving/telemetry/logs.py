"""Structured logs: one line a request, one line an event, without patient data.

What an exception says is not logged, only its type and where it came from: libraries quote in their messages what they were
given. The libraries that read files of patients are cut to the place that spoke, for the same reason.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import time
import traceback
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from serving.errors import SetupError
from serving.settings import Settings

ROOT = "serving"
FILE = "medserve.log"
READERS = ("pydicom", "pylibjpeg", "nibabel", "PIL", "nrrd", "py.warnings")
"""Loggers of libraries that see what lies in a file, and Python's warnings, which repeat what those say."""
MOST_FRAMES = 12


def begin(settings: Settings, *, aloud: bool = False) -> None:
    """Send this process's logs to where the settings say. A second call changes nothing. Raises SetupError.

    `aloud`: warnings go to standard error as well, where somebody may look on.
    """
    root = logging.getLogger()
    if any(isinstance(handler, (_SharedFile, _Stderr)) for handler in root.handlers):
        return
    chosen = settings.logs
    handler: logging.Handler = _Stderr() if chosen.to == "stderr" else _file(settings)
    handler.setFormatter(JsonLines() if chosen.format == "json" else TextLines())
    root.addHandler(handler)
    if aloud and chosen.to == "file":
        echo = _Stderr()
        echo.setLevel(logging.WARNING)
        echo.setFormatter(TextLines())
        root.addHandler(echo)
    logging.getLogger(ROOT).setLevel(chosen.level.upper())
    logging.captureWarnings(True)


def folder(settings: Settings) -> Path:
    """Where the log files of this machine lie."""
    return settings.home / "logs"


def _file(settings: Settings) -> logging.Handler:
    place = folder(settings)
    try:
        place.mkdir(parents=True, exist_ok=True)
        return _SharedFile(place / FILE, settings.logs.max_bytes)
    except OSError as exc:
        raise SetupError(f'logs cannot be written to {place}: {exc.strerror}; or set logs.to = "stderr"') from exc


class _Stderr(logging.StreamHandler[Any]):
    def __init__(self) -> None:
        super().__init__(sys.stderr)


class _SharedFile(WatchedFileHandler):
    """One file for all processes of a machine: each line is one write to its end. A full one is put aside."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(path, encoding="utf-8")
        self._path = path
        self._max_bytes = max_bytes

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if self.stream is not None and self.stream.tell() > self._max_bytes:
            self._turn()
        super().emit(record)

    def _turn(self) -> None:
        """Put the full file aside, unless another process just has; the parent class then opens the new one."""
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._path.exists() and self._path.stat().st_size > self._max_bytes:
                os.replace(self._path, self._path.with_suffix(".log.1"))


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, the record's own fields, and of an exception `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(told(record), ensure_ascii=False, separators=(",", ":"), default=str)


class TextLines(logging.Formatter):
    """The same for people: `time level logger message key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = told(record)
        head = [str(line.pop(key)) for key in ("time", "level", "logger", "message")]
        rest = [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in line.items()]
        return " ".join([*head, *rest]).replace("\r", " ").replace("\n", " ")


def told(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    line = {
        "time": f"{at}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record),
        **getattr(record, "fields", {}),
    }
    if record.exc_info and record.exc_info[1] is not None:
        line["error"] = where(record.exc_info[1])
    return line


def _message(record: logging.LogRecord) -> str:
    if record.name.split(".")[0] in READERS or record.name in READERS:
        return f"a remark, withheld, from {record.module}:{record.lineno}"
    return record.getMessage()


def where(exc: BaseException) -> list[str]:
    """Of an exception and of what caused it: the type, then each place it went through, the innermost last. No message."""
    frames = traceback.extract_tb(exc.__traceback__)[-MOST_FRAMES:]
    found = [type(exc).__name__, *(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)]
    return found if exc.__cause__ is None else [*found, "from", *where(exc.__cause__)]
