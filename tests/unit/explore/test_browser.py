"""The exported page in a real Chromium whose network is off."""

import time

import pandas as pd
import pytest
from explored_study import MODELS, PROMPTS, STEPS
from offline import offline, requests

import blockcoupling as bc
from blockcoupling.explore.export import write_export

pytestmark = pytest.mark.browser

VIEWS = ("matrices", "pair", "training", "scores", "tokens", "ablation")


class Page:
    """The page in a browser: opens views, and asks what it shows."""

    def __init__(self, browser, url: str) -> None:
        self.browser, self.url = browser, url

    def open(self, hash_: str = "") -> None:
        self.browser.get("about:blank")
        self.browser.get(f"{self.url}#{hash_}")
        self.settle()

    def settle(self) -> None:
        """Wait until the view is drawn, or says why not."""
        for _ in range(600):
            if self.run(
                "const busy = document.getElementById('figures').getAttribute('aria-busy');"
                "return busy === 'false' || !document.getElementById('problem').hidden"
            ):
                return
            time.sleep(0.1)
        pytest.fail("the page is not drawn after a minute")

    def run(self, script: str, *values):
        return self.browser.execute_script(script, *values)

    def until(self, script: str) -> None:
        for _ in range(300):
            if self.run(f"return {script}"):
                return
            time.sleep(0.1)
        pytest.fail(f"never true: {script}")

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)
        time.sleep(0.2)
        self.settle()

    def point_at(self, plot: str, i: int, j: int) -> None:
        """Move the pointer to a cell of a plot's first matrix."""
        self.see(plot)
        x, y = self.run(
            "const plot = document.getElementById(arguments[0]), {x0, dx, y0, dy} = plot.data[0];"
            "const at = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;"
            "return [at.left + xaxis._offset + xaxis.d2p(x0 + (arguments[2] - 1) * dx),"
            "at.top + yaxis._offset + yaxis.d2p(y0 + (arguments[1] - 1) * dy)]",
            *(plot, i, j),
        )
        for step in (-3, 0):
            moved = {"type": "mouseMoved", "x": x + step, "y": y + step}
            self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", moved)

    def see(self, plot: str) -> None:
        """Scroll to a figure: it is drawn when it comes near to what is visible."""
        self.run("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", plot)
        self.until(f"document.getElementById('{plot}').querySelector('svg') !== null")

    def see_every_figure(self) -> None:
        """Scroll through the page."""
        found = "[...document.querySelectorAll('.plot:not(.list)')].map(plot => plot.id)"
        for plot in self.run(f"return {found}"):
            self.see(plot)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def width(self, width: int, *, dark: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@pytest.fixture(scope="module")
def opened(browser, page) -> Page:
    with offline(browser):
        yield Page(browser, page.as_uri())


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, True)])
def test_every_view_is_drawn_without_a_request_or_a_complaint(browser, opened, page, width, dark):
    opened.width(width, dark=dark)
    requests(browser), browser.get_log("browser")
    for view in VIEWS:
        opened.open(f"view={view}")
        assert browser.get_log("browser") == []
        assert opened.run("return document.getElementById('problem').hidden")
        opened.see_every_figure()
        figures = opened.run(
            "return [...document.querySelectorAll('.plot')].map(p => [p.getAttribute('role'),"
            "p.getAttribute('aria-label') ?? '', p.querySelectorAll('svg').length])"
        )
        assert figures
        assert all(role and len(text) > 20 and drawn for role, text, drawn in figures)
        needed, given = opened.run(
            "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
        )
        assert needed <= given
    background = opened.run("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    asked = [url for url in requests(browser) if not url.startswith(("data:", "blob:", "about:"))]
    assert {url.partition("#")[0] for url in asked} == {page.as_uri()}
    opened.width(1280)


def test_a_hovered_value_is_the_table_s(opened, explored):
    opened.open("view=matrices&first=no&model=0:neox-b")
    m = (
        explored.one(kind="miscoupling", model="neox-b", checkpoint="step64", dataset="handwritten")
        .read()["miscoupling_mean"]
        .sel(variant="frobenius", K=10)
    )
    for i, j in ((1, 2), (3, 1)):
        opened.point_at("plot-matrices", i, j)
        value = float(m.sel(block=i, block_other=j))
        opened.until(f"document.querySelector('.readout').value.includes('m({i}, {j})')")
        assert f"m({i}, {j}) = {value:.4f}" in opened.run(
            "return document.querySelector('.readout').value"
        )


def test_matrices_at_each_token_are_side_by_side(browser, images, tmp_path):
    write_export([images], ["images"], tmp_path / "images.html", title="Images")
    with offline(browser):
        seen = Page(browser, (tmp_path / "images.html").as_uri())
        seen.open("view=matrices&first=no")
        chosen = "document.getElementById('at')"
        seen.run(f"{chosen}.value = 'each'; {chosen}.dispatchEvent(new Event('change'))")
        seen.see("plot-matrices")
        seen.until("document.getElementById('plot-matrices').data[1]?.name.includes('at mean')")
        model = seen.run("return document.querySelector('#model-0').value").partition(":")[2]
        about = {"model": model, "checkpoint": "epoch600", "dataset": "digits"}
        m = images.one(kind="miscoupling", **about).read()["miscoupling_by_pair_mean"]
        m = m.sel(
            variant="frobenius", K=seen.run("return Number(document.getElementById('k').value)")
        )
        for n, token in enumerate(("class", "mean")):
            value = float(m.isel(pair=n).sel(block=2, block_other=3))
            shown = seen.run(
                "return document.getElementById('plot-matrices').data[arguments[0]]", n
            )
            assert f"at {token}" in shown["name"]
            assert shown["z"][1][2] == pytest.approx(value, abs=5.1e-5)  # four decimals


def test_most_coupled_pair_of_the_largest_model_is_one_click_away(opened, explored):
    opened.open()
    m = explored.one(
        kind="miscoupling", model=list(MODELS)[-1], checkpoint=f"step{STEPS[-1]}",
        dataset="handwritten",
    ).read()["miscoupling_mean"].sel(variant="frobenius", K=10).load()  # fmt: skip
    i, j = (
        int(m[name][at]) for name, at in m.where(m["block"] != m["block_other"]).argmin(...).items()
    )
    assert f"blocks {i} and {j} couple most" in opened.text(".answer")
    opened.click(".answer button")
    assert "view=pair" in opened.browser.current_url
    assert f"m({i}, {j}) = {float(m.sel(block=i, block_other=j)):.4f}" in opened.text(".answer")
    assert "step64" in opened.text("#onset")


def test_a_pair_says_what_its_directions_say_and_what_maps_its_blocks_are(opened, explored):
    opened.open("view=pair&dataset=heldout&model=0:neox-b&i=3&j=1")
    ds = explored.one(kind="svd", model="neox-b", checkpoint="step64", dataset="heldout").read()
    own = ds.isel(prompt=0, pair=0).sel(block=1)
    cells = opened.run(
        "return [...document.querySelectorAll('#card-pair-readout section:first-of-type tbody tr')]"
        ".map(row => [...row.querySelectorAll('code')].map(each => each.textContent))"
    )
    said = [f"␣w{token}" for token in own["readout_token"].transpose("k_read", ...).values.ravel()]
    assert [text for row in cells for text in row] == said
    label = "return document.querySelector('#plot-pair-eigenvalues').getAttribute('aria-label')"
    departure = float(bc.departure_from_normality(own))
    assert f"block 1, departure from normality {departure:.3f}" in opened.run(label)


def test_a_link_restores_its_view_and_back_returns(opened):
    link = "view=pair&model=0%3Aneox-a&dataset=heldout&i=3&j=1&variant=absolute&k=5&row=2"
    opened.open(link)
    shown = "[...document.querySelectorAll('form select')].map(s => [s.id, s.value])"
    wanted = {"i": "3", "j": "1", "variant": "absolute", "k": "5", "row": "2"}
    found = dict(opened.run(f"return {shown}"))
    assert {name: found[name] for name in wanted} == wanted
    assert "neox-a" in opened.text(".answer")
    assert PROMPTS[2] in opened.text("#card-pair-prompts + details [aria-pressed=true]")
    opened.click("nav a[data-view=training]")
    assert "view=training" in opened.browser.current_url
    opened.browser.back()
    opened.until("location.hash.includes('view=pair')")
    opened.settle()
    assert dict(opened.run(f"return {shown}"))["variant"] == "absolute"


def test_keys_move_through_a_matrix_and_open_a_pair(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened.open("view=matrices&first=no")
    opened.run("document.getElementById('plot-matrices').focus()")
    ActionChains(opened.browser).send_keys(
        Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT
    ).perform()
    opened.until("document.querySelector('.readout').value.includes('m(2, 3)')")
    ActionChains(opened.browser).send_keys(Keys.ENTER).perform()
    opened.until("location.hash.includes('view=pair')")
    assert {"i=2", "j=3"} <= set(opened.browser.current_url.split("#")[1].split("&"))


def test_a_figure_is_saved_and_fills_the_screen(browser, opened, explored, tmp_path):
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    opened.open("view=matrices&first=no&model=0:neox-b")
    opened.see("plot-matrices")
    name = "matrices-m-frobenius-K10"
    starts = {
        "png": b"\x89PNG",
        "svg": b"<svg",
        "csv": b"model,checkpoint,dataset,variant,K,i,j,m,se",
    }
    for n, (kind, start) in enumerate(starts.items(), 2):
        opened.run(f"document.querySelector('#card-matrices .tools :nth-child({n})').click()")
        file = tmp_path / f"{name}.{kind}"
        for _ in range(100):
            if file.exists():
                break
            time.sleep(0.1)
        assert file.read_bytes().startswith(start)
    about = {"model": "neox-b", "checkpoint": "step64", "dataset": "handwritten"}
    m = explored.one(kind="miscoupling", **about).read()["miscoupling_mean"]
    table = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(table) == 6
    for row in table.itertuples():
        own = m.sel(variant=row.variant, K=row.K, block=row.i, block_other=row.j)
        assert row.m == pytest.approx(float(own), abs=5.1e-5)  # a file has four decimals

    full = browser.find_element("css selector", "#card-matrices .tools button")
    before = opened.run("return document.getElementById('plot-matrices').clientWidth")
    full.click()
    opened.until("document.fullscreenElement?.id === 'card-matrices'")
    opened.until(f"document.querySelector('#plot-matrices svg').clientWidth > {before}")
    full.click()
    opened.until("document.fullscreenElement === null")


def test_play_goes_through_the_checkpoints(opened):
    opened.open("view=matrices&first=no&model=0:neox-b&step=4")
    opened.see("plot-matrices")
    opened.run("document.getElementById('step-play').click()")
    assert opened.text("#step-play") == "Stop"
    opened.until("location.hash.includes('step=64')")
    opened.until("document.getElementById('plot-matrices').data[0].name.includes('step64')")
    opened.until("document.getElementById('step-play').textContent === 'Play'")


def test_a_browser_without_gzip_streams_gets_a_sentence(opened):
    script = {"source": "delete window.DecompressionStream"}
    added = opened.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        opened.browser.get("about:blank")
        opened.browser.get(opened.url)
        assert "too old" in opened.text("#problem")
        assert opened.run("return !document.getElementById('problem').hidden")
    finally:
        opened.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        opened.browser.get("about:blank")
        opened.browser.get_log("browser")
