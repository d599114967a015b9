"""One file over HTTP into a `.part` file: resumed where it was cut, its digest counted as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from serving.errors import SetupError

Say = Callable[[str], None]
TRIES, PAUSE_S = 5, 1.0
"""A connection that is cut is taken up again so often, each time where it broke off."""
TIMEOUT_S = 30.0
SAY_EVERY_S = 5.0


def fetch(url: str, part: Path, say: Say, *, pause_s: float = PAUSE_S) -> None:
    """Download into `part`, going on behind what it holds already. Raises SetupError: refused, or cut too often.

    A later call goes on where this one ended.
    """
    progress = _Progress(part.name.removesuffix(".part"), say)
    for attempt in range(1, TRIES + 1):
        try:
            _once(url, part, progress)
            return
        except httpx.HTTPStatusError as exc:
            status = exc.response.status_code
            if status < 500 and status != 429:
                raise SetupError(f"{_host(url)} answers {status} for {_name(url)}: {_hint(status)}") from exc
            why = f"status {status}"
        except httpx.TransportError as exc:
            why = type(exc).__name__
        if attempt < TRIES:
            say(f"{_host(url)} broke off ({why}): going on at {_held(part) >> 20} MiB")
            time.sleep(pause_s * attempt)
    raise SetupError(f"{_name(url)} could not be downloaded from {_host(url)} ({why}): run it again to go on where it ended")


def _once(url: str, part: Path, progress: _Progress) -> None:
    have = _held(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # nothing lies behind what is held: it is whole, or it is another file's
            if answer.headers.get("content-range", "").removeprefix("bytes */") == str(have):
                return
            part.unlink()
            raise httpx.ReadError("the file there is shorter than what is held")
        answer.raise_for_status()
        resumed = answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {have}-")
        at = have if resumed else 0
        whole = at + int(answer.headers.get("content-length", 0))
        with part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_raw():
                file.write(chunk)
                at += len(chunk)
                progress.tell(at, whole)


class _Progress:
    """A line now and then."""

    def __init__(self, name: str, say: Say) -> None:
        self._name, self._say, self._last = name, say, time.monotonic()

    def tell(self, at: int, whole: int) -> None:
        if time.monotonic() - self._last >= SAY_EVERY_S:
            self._last = time.monotonic()
            of = f" of {whole >> 20} MiB ({100 * at // whole} %)" if whole else " MiB"
            self._say(f"{self._name}: {at >> 20}{of}")


def _held(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _host(url: str) -> str:
    return httpx.URL(url).host


def _name(url: str) -> str:
    return url.split("?")[0].rsplit("/", 1)[-1]


def _hint(status: int) -> str:
    if status in (401, 403):
        return "it wants an account: download the file yourself and give it with --checkpoint FILE"
    return "is the address right?"
