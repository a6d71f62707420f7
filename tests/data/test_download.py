"""Downloads against a local server that truncates, corrupts, stalls, refuses and recovers."""

import hashlib
import http.server
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest

from polymamba.core.errors import UserError
from polymamba.data.download import fetch, sha256_of
from polymamba.data.sources import RemoteFile

CONTENT = bytes(i * i % 251 for i in range(100_000))
HALF = len(CONTENT) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the path names what goes wrong, and `/once/…` goes wrong at the first request only."""

    def do_GET(self):
        server, path = self.server, self.path
        server.requests[path].append(self.headers.get("Range"))
        fault = path.strip("/").split("/")
        if fault[0] == "once":
            fault = fault[1:] if len(server.requests[path]) == 1 else ["good"]
        start = 0
        if (wanted := self.headers.get("Range")) and fault[0] != "norange":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if fault[0] in ("404", "503"):
            self.send_error(int(fault[0]))
            return
        body = CONTENT[start:]
        if fault[0] == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault[0] == "long":
            body += b"more"
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault[0] in ("truncate", "stall"):
            self.wfile.write(body[: HALF - start])
            self.wfile.flush()
            if fault[0] == "stall":
                server.released.wait(10)
            return
        if fault[0] == "slow":
            time.sleep(0.3)
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that hangs up is part of these tests."""


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.requests, server.released = defaultdict(list), threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def remote(server, *faults, content=CONTENT):
    urls = tuple(f"http://127.0.0.1:{server.server_port}/{fault}" for fault in faults)
    return RemoteFile("file.bin", urls, hashlib.sha256(content).hexdigest(), len(content))


def fetched(server, folder, *faults, **options):
    return fetch(remote(server, *faults), folder, **{"attempts": 3, "timeout": 0.5, "wait": 0.01, **options})


@pytest.mark.parametrize("fault", ["good", "once/truncate", "once/corrupt", "once/stall", "once/503", "once/long"])
def test_a_whole_file_or_a_second_try(server, tmp_path, fault):
    path = fetched(server, tmp_path / "new" / "folder", fault)
    assert path.read_bytes() == CONTENT
    assert sha256_of(path) == hashlib.sha256(CONTENT).hexdigest()
    assert len(server.requests[f"/{fault}"]) == (2 if fault.startswith("once") else 1)
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".file.bin.lock", "file.bin"]


@pytest.mark.parametrize("fault", ["truncate", "corrupt", "stall", "404", "503", "long"])
def test_a_bad_file_never_gets_the_final_name(server, tmp_path, fault):
    with pytest.raises(UserError) as caught:
        fetched(server, tmp_path, fault, attempts=2, timeout=0.2)
    assert not (tmp_path / "file.bin").exists()
    message = str(caught.value)
    assert str(tmp_path / "file.bin") in message
    assert "POLYMAMBA_DATA" in message
    assert f"/{fault}" in message
    assert {"404": "404", "503": "503", "corrupt": "sha256", "long": "more than"}.get(fault, "") in message


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
    with pytest.raises(UserError):
        fetched(server, tmp_path, "404")
    assert len(server.requests["/404"]) == 1


def test_another_address_helps(server, tmp_path):
    assert fetched(server, tmp_path, "404", "corrupt", "good").read_bytes() == CONTENT


def test_goes_on_where_it_stopped(server, tmp_path):
    fetched(server, tmp_path, "once/truncate")
    assert server.requests["/once/truncate"] == [None, f"bytes={HALF}-"]


def test_goes_on_after_a_crash(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1234])
    (tmp_path / ".file.bin.lock").touch()
    assert fetched(server, tmp_path, "good").read_bytes() == CONTENT
    assert server.requests["/good"] == ["bytes=1234-"]


@pytest.mark.parametrize("stale", [b"other" * 100, CONTENT[:-1] + b"\0", CONTENT + b"more"])
def test_a_stale_partial_file_is_dropped(server, tmp_path, stale):
    (tmp_path / "file.bin.part").write_bytes(stale)
    assert fetched(server, tmp_path, "good").read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_server(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetched(server, tmp_path, "404").read_bytes() == CONTENT
    assert not server.requests


def test_a_server_that_cannot_continue_starts_over(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:10])
    assert fetched(server, tmp_path, "norange").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["good", "once/truncate", "corrupt", "truncate"])
def test_a_file_of_unknown_size_is_held_to_its_md5(server, tmp_path, fault):
    known = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    asked = RemoteFile("file.bin", remote(server, fault).urls, md5=known)
    if fault in ("good", "once/truncate"):
        assert fetch(asked, tmp_path, timeout=0.5, wait=0.01).read_bytes() == CONTENT
        assert server.requests[f"/{fault}"][1:] == ([f"bytes={HALF}-"] if fault == "once/truncate" else [])
        return
    with pytest.raises(UserError, match=f"md5 {known}"):
        fetch(asked, tmp_path, attempts=2, timeout=0.2, wait=0.01)
    assert not (tmp_path / "file.bin").exists()


def test_a_file_that_is_there_is_not_downloaded(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"here")
    assert fetched(server, tmp_path, "good").read_bytes() == b"here"
    assert not server.requests


def test_offline_says_where_to_put_the_file(tmp_path):
    file = RemoteFile("file.bin", ("http://127.0.0.1:9/file.bin",), "0" * 64, 5)
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        fetch(file, tmp_path, attempts=2, wait=0.01)
    assert str(tmp_path / "file.bin") in caught.value.do
    assert "data.root=" in caught.value.do


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match="taken"):
        fetched(server, tmp_path / "taken", "good")


def test_two_processes_at_once(server, tmp_path):
    code = (
        f"from polymamba.data.download import fetch, RemoteFile; fetch({remote(server, 'slow')!r}, {str(tmp_path)!r})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.requests["/slow"]) == 1
