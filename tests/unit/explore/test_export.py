"""The exported file holds the payloads, stays below its limit, and says what it leaves out."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from blockcoupling.explore.export import write_export
from blockcoupling.explore.packing import unpacked
from blockcoupling.explore.payloads import payload

PART = re.compile(r'<script type="application/gzip" id="data:([^"]+)">([^<]*)</script>')


def contents(file) -> dict[str, dict]:
    parts = dict(PART.findall(file.read_text(encoding="utf-8")))
    assert b"plotly.js" in gzip.decompress(base64.b64decode(parts.pop("plotly")))[:200]
    return {key: json.loads(gzip.decompress(base64.b64decode(text))) for key, text in parts.items()}


def test_it_holds_every_payload_to_four_decimals(page, explored):
    found = contents(page)
    assert {key.split("/")[0] for key in found} == {
        *("index", "matrices", "pair", "products", "prompts", "tokens", "course", "points"),
        "damage",
    }
    path = "0/neox-b/step64/heldout"
    live = payload([explored], ["small"], f"matrices/{path}")
    m = unpacked(found[f"matrices/{path}"]["m"])
    assert np.array_equal(np.round(m, 4), np.round(live["m"], 4))
    # Six ordered pairs of three blocks; S and A have singular values of up to 20.
    pairs = [key for key in found if key.startswith(f"pair/{path}")]
    assert len(pairs) == 6
    for key in pairs:
        live = payload([explored], ["small"], key)
        assert np.allclose(unpacked(found[key]["m"]), live["m"], atol=5.1e-5)
        assert found[key]["rows"] == live["rows"]
        products = key.replace("pair", "products") + "/0"
        live = payload([explored], ["small"], products)
        assert np.allclose(unpacked(found[products]["A"]), live["A"], atol=5.1e-4)


def test_the_same_catalog_makes_the_same_file(page, explored, tmp_path):
    again = tmp_path / "again.html"
    write_export([explored], ["small"], again, title="Small")
    assert again.read_bytes() == page.read_bytes()


def test_a_file_that_is_full_keeps_what_matters_and_says_so(page, explored, tmp_path):
    file, whole = tmp_path / "less.html", contents(page)
    # Room for about half of the payloads of pairs.
    written = write_export(
        [explored], ["small"], file, title="Small", limit=page.stat().st_size - 12_000
    )
    found = contents(file)
    assert written.bytes == file.stat().st_size < page.stat().st_size - 12_000
    assert {key for key in whole if not key.startswith(("pair", "products"))} <= set(found)
    missing = len(whole) - len(found)
    assert missing > 0
    counts = [int(number) for number in re.findall(r"(\d+) of \w+", written.left_out)]
    assert sum(counts) == missing
    assert found["index"]["left_out"] == written.left_out


def test_a_small_file_has_the_study_s_matrices_of_every_checkpoint(page, explored, tmp_path):
    file, whole = tmp_path / "small.html", contents(page)
    bytes_of = sum(len(text) for key, text in PART.findall(page.read_text()) if "matrices" in key)
    # Room for the tables and less than half of the matrices.
    limit = page.stat().st_size - bytes_of // 2 - sum(
        len(text) for key, text in PART.findall(page.read_text()) if key.startswith(("pa", "pr"))
    )  # fmt: skip
    written = write_export([explored], ["small"], file, title="Small", limit=limit)
    found = contents(file)
    thin = re.search(r"other variants, other K and overlaps in (\d+) matrices", written.left_out)
    keys = [key for key in whole if key.startswith("matrices")]
    differ = [key for key in keys if found[key] != whole[key]]
    assert len(differ) == int(thin[1]) > 0
    for key in keys:
        v = found[key]["variants"].index("frobenius"), found[key]["ks"].index(10)
        kept, all_ = unpacked(found[key]["m"]), unpacked(whole[key]["m"])
        assert np.array_equal(np.round(kept[v], 4), np.round(all_[v], 4))
        assert np.isnan(kept).sum() == (kept.size - kept[v].size if key in differ else 0)


@pytest.mark.parametrize("word", ["http://", "https://"])
def test_the_page_itself_names_no_place_to_fetch_from(page, word):
    text = PART.sub("", page.read_text(encoding="utf-8"))
    assert word not in text
