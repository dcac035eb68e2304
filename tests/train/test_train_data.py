"""The training text: symbols, split, and everything that can be wrong with it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from icgpt.errors import IcgptError
from icgpt.train import data
from icgpt.train.corpus import prepare
from icgpt.train.errors import DataError


def test_split_is_nine_tenths_to_one() -> None:
    text = data.cut(b"abcdef" * 185_899, (90, 10))
    assert (len(text.train), len(text.validation), len(text.test)) == (1_003_854, 111_540, 0)


def test_split_in_three_keeps_every_character() -> None:
    content = "zwei Sätze. " * 17
    text = data.cut(content.encode(), (80, 15, 5), "story.txt")
    assert text.train + text.validation + text.test == content
    assert [len(part) for part in (text.train, text.validation, text.test)] == [163, 30, 11]
    assert text.name == "story.txt"
    assert text.sha256 == hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.parametrize("content", [b"x", b"a" * 2560])
def test_short_text_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="too short") as caught:
        prepare(data.cut(content, (90, 10)), 256)
    assert "--split" in (caught.value.hint or "")


def test_empty_text_is_refused() -> None:
    for kind in ("characters", "bpe"):
        with pytest.raises(DataError, match="empty"):
            prepare(data.cut(b"", (90, 10)), 256, kind, 300)


def test_shortest_text() -> None:
    assert len(prepare(data.cut(b"a" * 2570, (90, 10)), 256).validation) == 257


def test_other_encodings_are_refused() -> None:
    with pytest.raises(DataError, match="not UTF-8 \\(at byte 2\\)"):
        data.cut(b"ab\xff" * 2000, (90, 10))


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name, words in (("b.txt", "second\n"), ("a.txt", "first"), ("c.md", "no text")):
        (tmp_path / name).write_text(words)
    (tmp_path / "deeper" / "d.txt").write_text("last\n\n")
    text = data.find(str(tmp_path), (50, 50), _ignore)
    assert text.train + text.validation == "first\n\nsecond\n\nlast\n\n"


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no \.txt files"):
        data.find(str(tmp_path), (50, 50), _ignore)


def test_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):  # a folder is no file
        with pytest.raises(DataError, match="cannot be read"):
            data.read_file(path)


def test_large_files_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(data.MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match="larger than 256 MiB"):
        data.read_file(tmp_path / "large.txt")


class _Site(BaseHTTPRequestHandler):
    """Answers every path with what the server holds; /404 is missing."""

    def do_GET(self) -> None:
        content: bytes = self.server.content  # type: ignore[attr-defined]
        self.send_response(404 if self.path == "/404" else 200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HTTPServer]:
    """A web server on the loopback, and a cache folder of its own."""
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        server.content = b"some text"  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(data, "SHAKESPEARE_URL", f"http://127.0.0.1:{server.server_port}/x")
        monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path / "cache" / "icgpt"))
        yield server
        server.shutdown()
        thread.join()


def _ignore(_: str) -> None:
    pass


def test_download_is_kept(
    site: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "SHAKESPEARE_SHA256", hashlib.sha256(b"some text").hexdigest())
    said: list[str] = []
    assert data.shakespeare(said.append) == b"some text"
    assert len(said) == 1
    assert (tmp_path / "cache" / "icgpt" / "tinyshakespeare.txt").read_bytes() == b"some text"
    monkeypatch.setattr(data, "SHAKESPEARE_URL", "http://127.0.0.1:1/")
    assert data.shakespeare(said.append) == b"some text"
    assert len(said) == 1


def test_another_text_is_refused(site: HTTPServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="another file") as caught:
        data.shakespeare(_ignore)
    assert "--data" in (caught.value.hint or "")
    assert not (tmp_path / "cache").exists()


def test_endless_answer_is_cut(site: HTTPServer) -> None:
    site.content = b"x" * (data.SHAKESPEARE_BYTES + 100_000)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="another file"):
        data.shakespeare(_ignore)


@pytest.mark.parametrize("broken", ["http://127.0.0.1:1/", "404"])
def test_no_connection_names_the_way_out(
    site: HTTPServer, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    url = broken if "//" in broken else data.SHAKESPEARE_URL.replace("/x", "/404")
    monkeypatch.setattr(data, "SHAKESPEARE_URL", url)
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        data.shakespeare(_ignore)
    assert "--data FILE" in (caught.value.hint or "")


def test_damaged_cache_is_replaced(
    site: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "SHAKESPEARE_SHA256", hashlib.sha256(b"some text").hexdigest())
    place = tmp_path / "cache" / "icgpt" / "tinyshakespeare.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"some te")
    assert data.shakespeare(_ignore) == b"some text"
    assert place.read_bytes() == b"some text"


def test_cache_that_cannot_be_written_is_no_error(
    site: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "SHAKESPEARE_SHA256", hashlib.sha256(b"some text").hexdigest())
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    said: list[str] = []
    assert data.shakespeare(said.append) == b"some text"
    assert "not kept" in said[-1]


def test_errors_belong_to_the_package() -> None:
    assert issubclass(DataError, IcgptError)
