"""A study on a web server that lists no directories, as object storage and pages do not."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

import intake
import pytest
import xarray as xr

import blockcoupling as bc
from blockcoupling.errors import MeasurementError

OWN = "m/step64/held-out"


class NoLists(http.server.SimpleHTTPRequestHandler):
    ranges = True

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = whole = path.read_bytes()
        given = self.headers.get("Range", "") if self.ranges else ""
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", given):
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


class NoRanges(NoLists):
    ranges = False


@contextmanager
def serving(handler: type[NoLists], tree: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tree))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("opener", "handler"),
    [
        (bc.open_catalog, NoLists),
        (bc.open_catalog, NoRanges),  # plain `python -m http.server` answers no range requests
        (intake.open_catalog, NoLists),
    ],
)
def test_stores_are_read_over_http(catalog, tree: Path, opener, handler) -> None:
    local = bc.open_catalog(tree / "catalog" / "catalog.yml")
    with serving(handler, tree) as url:
        served = opener(f"{url}/catalog/catalog.yml")
        for name in (f"miscoupling/{OWN}", f"svd/{OWN}"):
            read = served[name].read()
            assert read.data_vars
            xr.testing.assert_equal(read.compute(), local[name].read().compute())


@pytest.mark.parametrize("handler", [NoLists, NoRanges])
def test_a_chunk_that_is_gone_is_no_number(catalog, tree: Path, handler) -> None:
    name = f"svd/{OWN}"
    store = bc.open_catalog(tree / "catalog" / "catalog.yml").path(name)
    store = store.parent if store.name == "zarr.json" else store
    with serving(handler, tree) as url:
        read = bc.open_catalog(f"{url}/catalog/catalog.yml")[name].read()
        next((store / "A").glob("c*")).unlink()
        with pytest.raises(
            MeasurementError, match=r"svd\.zarr: the file A/c\S+ of the store is gone"
        ):
            read["A"].load()
