"""A misbehaving hub on this machine's loopback: slow, failing, dropping connections."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from faults.extraction import K, prepare
from faults.fault import Outcome, contents

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = "model.safetensors"
TIMEOUT = 2.0
"""Seconds that the hub's library waits, instead of ten."""


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of one model after misbehaving a given number of times."""

    protocol_version = "HTTP/1.1"
    directory: ClassVar[Path]
    fault: ClassVar[str]
    """`busy`: 503; `silent`: no answer; `half`: drops the connection while sending the weights;
    `wrong`: sends the weights with a bit flipped."""
    times: ClassVar[int]
    provoked: ClassVar[Counter[str]]

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            if self._misbehaves("busy"):
                return self._send(503, b"busy")
            if self._misbehaves("silent"):
                time.sleep(2 * TIMEOUT)
                self.close_connection = True
                return None
            return self._send(200, json.dumps(self._about()).encode())
        file = self.directory / self.path.partition("?")[0].rsplit("/", 1)[-1]
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self._file(file)

    do_HEAD = do_GET

    def _about(self) -> object:
        """The hub's answer about the model or its files."""
        files = sorted(self.directory.iterdir())
        if "/tree/" not in self.path:
            siblings = [{"rfilename": path.name} for path in files]
            return {"id": "a/b", "sha": COMMIT, "siblings": siblings}
        return [
            {
                **{"type": "file", "path": path.name, "size": path.stat().st_size},
                **{"oid": hashlib.sha256(path.read_bytes()).hexdigest()},
            }
            for path in files
        ]

    def _file(self, file: Path) -> None:
        content = file.read_bytes()
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        status, begin = 200, 0
        if (asked := self.headers.get("Range", "")).startswith("bytes="):
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if file.name != LARGE or self.command == "HEAD":
            return self._send(status, content[begin:], headers)
        if self._misbehaves("half"):
            self._send(status, content[begin:], headers, upto=(len(content) - begin) // 2)
            self.close_connection = True
            return None
        if self._misbehaves("wrong"):
            content = content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]
        return self._send(status, content[begin:], headers)

    def _misbehaves(self, fault: str) -> bool:
        cls = type(self)
        if fault != cls.fault or cls.provoked[fault] >= cls.times:
            return False
        cls.provoked[fault] += 1
        return True

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        upto: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:upto])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _hub(directory: Path, fault: str, times: int) -> Iterator[str]:
    Hub.directory, Hub.fault, Hub.times, Hub.provoked = directory, fault, times, Counter()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


FAULTS = {
    "busy": ("the hub answers 503", 2),
    "silent": ("the hub does not answer in time", 1),
    "half": ("the hub drops the connection while sending weights", 2),
    "wrong": ("the hub sends the weights with a bit flipped", 1),
}


def misbehaving(directory: Path) -> Iterator[Outcome]:
    """Measure a model from a misbehaving hub; compare the numbers with those of the local files."""
    job = prepare(directory)
    status, said = job.run()
    if status:
        raise AssertionError(said)
    reference = _numbers(job.place / "svd")
    weights = next((directory / "weights").rglob(LARGE)).parent
    for fault, (words, times) in FAULTS.items():
        begun, outcome = time.monotonic(), Outcome(words)
        place = directory / fault
        place.mkdir()
        problems: list[str] = []
        with _hub(weights, fault, times) as address:
            first = _measure(place, job.prompts, address)
            ended = first
            if fault == "wrong":
                problems += _remove_named(first)
                ended = _measure(place, job.prompts, address)
            if not Hub.provoked[fault]:
                problems.append("the hub was not used")
            count = Hub.provoked[fault]
        if ended.returncode:
            problems.append(ended.stderr)
        found = _numbers(place / "svd")
        different = sorted(name for name in reference if found.get(name) != reference[name])
        for _ in range(count):
            outcome.count(problems + different, len(different))
        outcome.seen = _SEEN[fault]
        outcome.seconds = time.monotonic() - begun
        yield outcome


_SEEN = {
    "busy": "one line per attempt; nothing to do",
    "silent": "one line per attempt; nothing to do",
    "half": "nothing to do: the download resumes",
    "wrong": "the message names the file; remove it, then run the same command",
}


def _numbers(svd: Path) -> dict[str, str]:
    """Digests of the chunks of a store, without its attributes, which hold the model's name."""
    return {
        name: digest for name, digest in contents(svd, ".").items() if not name.endswith(".json")
    }


def _measure(place: Path, prompts: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Look up the model and measure it, as two rules of a study do."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": address,
        "HF_HOME": str(place / "home"),
        "HF_HUB_DOWNLOAD_TIMEOUT": str(int(TIMEOUT)),
        "HF_HUB_ETAG_TIMEOUT": str(int(TIMEOUT)),
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "127.0.0.1",
    }
    spec = {"name": "m", "checkpoint": "step1", "source": "hub", "id": "a/b", "revision": "main"}
    record = place / "m.json"
    model = ["model", "--spec", json.dumps(spec), "--out", str(record)]
    extract = ["extract", "--model", str(record), "--prompts", str(prompts), "--k", str(K)]
    extract += ["--parts", str(place / "parts"), "--out", str(place / "svd" / "svd.zarr")]
    extract += ["--batch", "2", "--device", "cpu"]
    for words in (model, extract):
        ended = subprocess.run(
            [sys.executable, "-m", "blockcoupling", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            return ended
    return ended


def _remove_named(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Remove the file that the message names; return a problem if it names none."""
    words = (word.strip("(),;:") for word in ended.stderr.split())
    named = [Path(word) for word in words if "/blobs/" in word or "/snapshots/" in word]
    if ended.returncode != 2 or not named:
        return [f"was not refused: {ended.stderr}"]
    named[0].resolve().unlink()
    named[0].unlink(missing_ok=True)
    return []
