"""Weights over HTTP: a server with ranges, one that breaks off, wrong digests, a mirror, offline."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serving.build import fetch, sources, weights
from serving.build.catalogue import find
from serving.build.sources import HuggingFace, Local, Url
from serving.errors import SetupError

CONTENT = bytes(range(256)) * 9001
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Files(ThreadingHTTPServer):
    """Serves CONTENT anywhere below `/file`. `cuts`: after how many bytes each of the next answers breaks off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.asked, self.ranges = [], [], True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        files = self.server
        wanted = self.headers.get("Range")
        files.asked.append((self.path, wanted))
        if "missing" in self.path or "gated" in self.path:
            self.send_error(404 if "missing" in self.path else 401)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and files.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: files.cuts.pop(0)] if files.cuts else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(fetch.fetch, "__kwdefaults__", {"pause_s": 0.0})
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    server = Files()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pull(tmp_path):
    """Pulls for CLIP into a home of its own; `said` are the lines, `kept` the folders of the store."""
    said = []

    def pull(source, **more):
        return weights.pull(find("clip"), tmp_path / "home", said.append, source, **more)

    pull.said = said
    pull.kept = lambda: sorted(p.name for p in (tmp_path / "home" / "weights").glob("[0-9a-f]*"))
    pull.home = tmp_path / "home"
    return pull


def test_a_url_is_kept_by_its_digest_and_fetched_once(files, pull):
    source = sources.parse(f"{files.url}/file/w.pt?token=x", DIGEST)
    first, second = pull(source), pull(source)
    assert first == second
    assert first.path == pull.home / "weights" / DIGEST / "w.pt"
    assert first.path.read_bytes() == CONTENT
    assert len(files.asked) == 1
    assert not any("token=x" in text for text in (first.source, *pull.said, (first.path.parent / "record.json").read_text()))
    assert weights.pulled(find("clip"), pull.home).path == first.path
    assert weights.pulled(find("chexzero"), pull.home) is None


def test_a_cut_connection_goes_on_where_it_ended(files, pull):
    files.cuts = [1_000_000, 500_000]
    assert pull(Url(f"{files.url}/file/w.pt", DIGEST)).path.read_bytes() == CONTENT
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0 for _, wanted in files.asked]
    assert starts == sorted(starts)
    assert 0 < starts[1] < starts[2] <= 1_500_000
    assert sum("broke off" in line for line in pull.said) == 2


def test_a_download_that_gave_up_goes_on_at_the_next_call(files, pull):
    files.cuts = [300_000] * fetch.TRIES
    with pytest.raises(SetupError, match="run it again"):
        pull(Url(f"{files.url}/file/w.pt", DIGEST))
    assert pull.kept() == []
    before = len(files.asked)
    assert pull(Url(f"{files.url}/file/w.pt", DIGEST)).path.read_bytes() == CONTENT
    assert files.asked[before][1] not in (None, "bytes=0-")


def test_a_server_without_ranges_begins_anew(files, pull):
    files.ranges, files.cuts = False, [1_000_000]
    assert pull(Url(f"{files.url}/file/w.pt", DIGEST)).path.read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(files, pull, tmp_path):
    part = tmp_path / "w.pt.part"
    part.write_bytes(CONTENT)
    fetch.fetch(f"{files.url}/file/w.pt", part, print)
    assert part.read_bytes() == CONTENT
    part.write_bytes(CONTENT + b"more")  # of another file: it begins anew
    fetch.fetch(f"{files.url}/file/w.pt", part, print)
    assert part.read_bytes() == CONTENT


def test_other_bytes_are_not_kept(files, pull):
    with pytest.raises(SetupError, match="were not kept"):
        pull(Url(f"{files.url}/file/w.pt", "0" * 64))
    assert pull.kept() == []
    assert not list((pull.home / "weights").rglob("*.part"))


def test_what_is_not_there_or_wants_an_account_is_said(files, pull):
    with pytest.raises(SetupError, match=r"answers 404 for missing\.pt"):
        pull(Url(f"{files.url}/missing.pt", DIGEST))
    with pytest.raises(SetupError, match="wants an account"):
        pull(Url(f"{files.url}/gated.pt", DIGEST))
    assert pull.kept() == []


def test_a_hub_file_comes_from_the_mirror_and_its_first_digest_is_recorded(files, pull, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{files.url}/file/")
    source = sources.parse(f"hf:some/model@{COMMIT}/sub/model.safetensors")
    assert pull(source).sha256 == DIGEST
    assert files.asked == [(f"/file/some/model/resolve/{COMMIT}/sub/model.safetensors", None)]
    assert any(DIGEST in line and "recorded" in line for line in pull.said)
    pull(source)
    assert len(files.asked) == 1
    store = pull.home / "weights"
    (store / DIGEST / "model.safetensors").unlink()
    weights._pin(store, str(source), "1" * 64)  # as if the first pull had been of other bytes
    with pytest.raises(SetupError, match="were not kept"):
        pull(source)


def test_offline_nothing_is_asked_and_what_is_kept_still_serves(files, pull, monkeypatch):
    source = Url(f"{files.url}/file/w.pt", DIGEST)
    with pytest.raises(SetupError, match="offline is set"):
        pull(source, no_network=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError, match="offline is set"):
        pull(source)
    assert files.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    made = pull(source)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull(source) == made


def test_a_file_is_copied_into_the_store(pull, tmp_path):
    (tmp_path / "mine.pt").write_bytes(CONTENT)
    made = pull(sources.parse(str(tmp_path / "mine.pt")))
    assert made.path.read_bytes() == CONTENT
    assert made.source == "file mine.pt"
    with pytest.raises(SetupError, match="were not kept"):
        pull(Local(tmp_path / "mine.pt", "0" * 64))
    with pytest.raises(SetupError, match=r"nobody\.pt"):
        pull(Local(tmp_path / "nobody.pt"))


def test_one_file_of_two_entries_is_told_to_both(pull, tmp_path):
    (tmp_path / "mine.pt").write_bytes(CONTENT)
    pull(Local(tmp_path / "mine.pt"))
    weights.pull(find("chexzero"), pull.home, print, Local(tmp_path / "mine.pt"))
    assert weights.pulled(find("chexzero"), pull.home) is not None
    assert weights.pulled(find("clip"), pull.home) is not None


@pytest.mark.parametrize(
    ("text", "sha256", "says"),
    [
        ("https://a/b", "", "needs --sha256"),
        ("hf:a/b@main/model.bin", "", "40 hex digits"),
        ("hf:a/model.bin", "", "40 hex digits"),
        ("https://a/b", "F" * 64, "64 hex digits"),
    ],
)
def test_a_source_that_is_not_pinned_is_refused(text, sha256, says):
    with pytest.raises(SetupError, match=says):
        sources.parse(text, sha256)


def test_the_catalogue_may_name_a_hub_file(files, pull, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{files.url}/file")
    entry = replace(find("clip"), weights=HuggingFace("o/r", "w.pt", COMMIT, DIGEST))
    found = weights.pull(entry, pull.home, print)
    assert (found.sha256, found.source) == (DIGEST, entry.source)
