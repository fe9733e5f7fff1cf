"""A study on a web server that lists no directories, as object storage and pages do not."""

import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import intake
import pytest
import xarray as xr

import blockcoupling as bc

OWN = "m/step64/held-out"


class NoLists(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = whole = path.read_bytes()
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            start, end = (int(each) if each else None for each in asked.groups())
            start, end = (-end, None) if start is None else (start, end and end + 1)
            content = whole[slice(start, end)]
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(content)))
        if asked:
            first = start if start >= 0 else len(whole) + start
            last = first + len(content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def url(catalog, tree: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(NoLists, directory=tree))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("opener", [bc.open_catalog, intake.open_catalog])
def test_stores_are_read_over_http(url: str, tree: Path, opener) -> None:
    served = opener(f"{url}/catalog/catalog.yml")
    local = bc.open_catalog(tree / "catalog" / "catalog.yml")
    for name in (f"miscoupling/{OWN}", f"svd/{OWN}"):
        read = served[name].read()
        assert read.data_vars
        xr.testing.assert_equal(read.compute(), local[name].read().compute())
