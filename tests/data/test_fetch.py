"""Downloads from a server of this process, which can be told to fail; checksums."""

import contextlib
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import numpy as np
import pytest
from asserts import assert_says

from metapl.data.sources import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(NamedTuple):
    url: str
    asked: list
    """The path and the Range of every request."""
    cuts: list
    """After how many bytes of the answer the next connections are cut."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        kind, _, _ = self.path.strip("/").partition("/")
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if kind == "moved":
            self.answer(302, b"", Location="/ranges/file")
        elif kind in ("absent", "page"):
            self.answer(*{"absent": (404, b"nothing"), "page": (200, b"<html>please log in</html>")}[kind])
        elif kind == "endless":  # without a length, so that the end of the connection is the end of the file
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        elif kind in ("unending", "nonsense", "odd"):
            self.without_end(kind)
        elif kind == "pieces":  # each with its length before it
            raw = CONTENT[int(asked[6:-1]) if asked else 0 :]
            self.send_response(206 if asked else 200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(raw), 50_000):
                piece = raw[start : start + 50_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if self.server.cuts and start + 50_000 >= self.server.cuts[0]:
                    self.server.cuts.pop()
                    return
            self.wfile.write(b"0\r\n\r\n")
        elif kind in ("ranges", "shifted") and asked:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(CONTENT):
                self.answer(416, b"", **{"Content-Range": f"bytes */{len(CONTENT)}"})
                return
            start -= kind == "shifted"
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.answer(206, CONTENT[start:], **{"Content-Range": span})
        else:
            self.answer(200, CONTENT)

    def without_end(self, kind):
        """The file itself under a length that is none, or more of it for as long as anybody listens."""
        self.send_response(200)
        if kind != "unending":
            self.send_header("Content-Length", self.path.rpartition("/")[2])
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(CONTENT)
            while kind != "odd":
                self.wfile.write(CONTENT)

    def answer(self, code, body, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.cuts = [], []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_port}", running.asked, running.cuts)
        running.shutdown()
        thread.join()


def assert_whole(folder, name="file"):
    assert (folder / name).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("kind", ["unending", "nonsense"])
@pytest.mark.parametrize("there", [b"", CONTENT[:1000], CONTENT * 5])
def test_an_answer_that_never_ends(server, tmp_path, kind, there):
    if there:
        (tmp_path / "file.part").write_bytes(there)
    most = len(CONTENT) + 1000
    assert_says(
        lambda: fetch.download(f"{server.url}/{kind}/file", tmp_path / "file", MD5, most=most), f"{most:,} bytes"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_says_that_it_is_too_long(server, tmp_path):
    assert_says(
        lambda: fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5, most=len(CONTENT) - 1), "sends more"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "", "9" * 30])
def test_a_length_that_is_none_is_not_believed(server, tmp_path, length):
    fetch.download(f"{server.url}/odd/{length}", tmp_path / "file", MD5, most=len(CONTENT))
    assert_whole(tmp_path)


# ---------------------------------------------------------------- downloads


@pytest.mark.parametrize("kind", ["ranges", "plain", "moved", "endless", "pieces"])
def test_a_file_is_downloaded(server, tmp_path, kind):
    told = []
    fetch.download(f"{server.url}/{kind}/file", tmp_path / "a" / "file", SHA256, lambda *done: told.append(done))
    assert_whole(tmp_path / "a")
    total = None if kind in ("endless", "pieces") else len(CONTENT)
    assert told[-1] == (len(CONTENT), total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert server.asked[0] == (f"/{kind}/file", None)


def test_a_file_that_is_there_is_not_downloaded(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    told = []
    fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5, lambda *done: told.append(done))
    assert server.asked == []
    assert told == [(len(CONTENT), len(CONTENT))]


def test_another_file_that_is_there_is_replaced(server, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5)
    assert_whole(tmp_path)


def test_another_file_that_is_there_stays_until_there_is_a_better_one(server, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    assert_says(lambda: fetch.download(f"{server.url}/page/file", tmp_path / "file", MD5))
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["ranges", "moved"])
def test_a_download_goes_on_where_it_stopped(server, tmp_path, kind):
    (tmp_path / "file.part").write_bytes(CONTENT[:123_456])
    told = []
    fetch.download(f"{server.url}/{kind}/file", tmp_path / "file", MD5, lambda *done: told.append(done))
    assert_whole(tmp_path)
    assert server.asked[-1] == ("/ranges/file", "bytes=123456-")
    assert told[0][0] > 123_456
    assert {total for _, total in told} == {len(CONTENT)}


@pytest.mark.parametrize("kind", ["plain", "shifted"])
def test_a_server_that_cannot_go_on_starts_over(server, tmp_path, kind):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    fetch.download(f"{server.url}/{kind}/file", tmp_path / "file", MD5)
    assert_whole(tmp_path)
    assert [asked for _, asked in server.asked] == ["bytes=1000-"] + [None] * (kind == "shifted")


def test_nothing_was_missing_but_the_name(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5)
    assert_whole(tmp_path)
    assert server.asked == [("/ranges/file", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_what_was_left_of_another_file_is_thrown_away(server, tmp_path, left):
    (tmp_path / "file.part").write_bytes(left)
    fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5)
    assert_whole(tmp_path)
    assert server.asked[-1] == ("/ranges/file", None)


def test_a_connection_that_breaks_is_made_again(server, tmp_path):
    server.cuts.extend([100_000, 50_000])
    fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5)
    assert_whole(tmp_path)
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_connection_that_breaks_between_pieces(server, tmp_path):
    server.cuts.append(100_000)
    fetch.download(f"{server.url}/pieces/file", tmp_path / "file", MD5)
    assert_whole(tmp_path)
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-"]


def test_a_connection_that_keeps_breaking(server, tmp_path):
    """What has arrived stays, and the next call goes on from there."""
    server.cuts.extend([1000] * 5)
    url, target = f"{server.url}/ranges/file", tmp_path / "file"
    assert_says(lambda: fetch.download(url, target, MD5), url, "the connection ended after 5,000 bytes", "again")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:5000]
    assert not target.exists()
    assert len(server.asked) == 5
    fetch.download(url, target, MD5)
    assert_whole(tmp_path)


def test_a_connection_that_brings_nothing(server, tmp_path):
    server.cuts.extend([0] * 9)
    assert_says(lambda: fetch.download(f"{server.url}/ranges/file", tmp_path / "file", MD5), "after 0 bytes")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("absent/file", ["404 Not Found"]),
        ("page/file", ["is not the published file", MD5]),
        ("ranges/a b", ["cannot be reached"]),
    ],
)
def test_what_is_not_the_file(server, tmp_path, path, words):
    for _ in range(2):
        url = f"{server.url}/{path}"
        assert_says(lambda url=url: fetch.download(url, tmp_path / "a" / "file", MD5), url, *words)
        assert not any(file.is_file() for file in tmp_path.rglob("*"))


def test_no_server(server, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        url = f"http://127.0.0.1:{other.server_port}/file"
    assert_says(lambda: fetch.download(url, tmp_path / "file", MD5), url, "refused")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/file", "example.org/file", ""])
def test_an_address_that_is_none(tmp_path, url):
    assert_says(lambda: fetch.download(url, tmp_path / "file", MD5), url, "no address to download from")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:x/"])
def test_an_address_that_leads_nowhere(tmp_path, monkeypatch, url):
    monkeypatch.setenv("no_proxy", "*")
    assert_says(lambda: fetch.download(url, tmp_path / "file", MD5), url, "cannot be reached")


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "below"
    assert_says(lambda: fetch.download(f"{server.url}/ranges/x", place, MD5), place, "cannot be written")
