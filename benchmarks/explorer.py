"""How long the explorer's page takes: to open, and for every kind of click.

python -m benchmarks.explorer clicks     42 models of 32 blocks on two datasets, as one file
python -m benchmarks.explorer opening    40 models at 1,200 prompts, by the server
python -m benchmarks.explorer            both; minutes, and a Chromium

Results are kept in benchmarks/explorer.json and shown in docs/explorer.md.

Milliseconds of a click are from the event to the next frame, and in brackets those that the page's
thread computed: on a busy machine, a click takes the latter.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
sys.path.insert(0, str(REPOSITORY / "tests" / "unit"))  # its synthetic studies

FAMILIES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
WIDE, PROMPTS = 40, 1200
MODELS, BLOCKS, STEPS, REPEATS = 42, 32, (1, 8, 64), 5

_MEASURED = """
const done = arguments[arguments.length - 1], before = document.documentElement.dataset.drawn;
const started = performance.now();
(0, eval)(arguments[0]);
const wait = () => document.documentElement.dataset.drawn === before
    || document.getElementById("figures").getAttribute("aria-busy") === "true"
  ? setTimeout(wait, 0)
  : requestAnimationFrame(() => setTimeout(() => done(performance.now() - started), 0));
setTimeout(wait, 0);
"""


def _select(name: str, n: str = "at + 1") -> str:
    """Return JavaScript that chooses another option of a field."""
    return (
        f"{{const field = document.getElementById('{name}'), at = field.selectedIndex;"
        f"field.selectedIndex = ({n}) % field.options.length;"
        "field.dispatchEvent(new Event('change'));}"
    )


def _press(selector: str) -> str:
    return f"document.querySelector({selector!r}).click()"


_SLIDE = (
    "{const field = document.getElementById('step');"
    "field.value = Number(field.value) === 0 ? 1 : 0; field.dispatchEvent(new Event('input'));}"
)
_POINT = (
    "{{const plot = document.getElementById('plot-{name}');"
    "plot.emit('plotly_click', {{points: [{point}]}});}}"
)
_TWELVE = "&".join(f"model=0:model-{n:02d}" for n in range(30, 42))

CLICKS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "view=matrices",
        "Matrices, one model",
        (
            ("another model", _press("#model-5")),
            ("checkpoint", _SLIDE),
            ("K", _select("k")),
            ("variant", _select("variant")),
            ("quantity", _select("quantity")),
            ("dataset", _select("dataset")),
        ),
    ),
    (
        f"view=matrices&{_TWELVE}",
        "Matrices, twelve models",
        (
            ("checkpoint", _SLIDE),
            ("K", _select("k")),
            ("without the first checkpoint", _press("#first")),
        ),
    ),
    (
        "view=pair&dataset=heldout",
        "Pair of blocks",
        (
            ("block j", _select("j")),
            ("prompt", _select("row")),
            ("checkpoint", _SLIDE),
            ("K", _select("k")),
        ),
    ),
    (
        f"view=training&{_TWELVE}",
        "Over training, twelve models",
        (
            ("one model less", _press("#model-0")),
            ("measure", _press("#measure-5")),
            ("variant", _select("variant")),
        ),
    ),
    (
        "view=scores",
        "Against scores",
        (
            ("predictor", _select("predictor")),
            ("score", _select("score")),
            ("family", _press("#family-1")),
            ("colour", _select("colour")),
            ("final checkpoints", _press("#final")),
        ),
    ),
    (
        "view=tokens",
        "Tokens",
        (("blocks", _select("blocks")), ("comparison", _select("comparison"))),
    ),
    (
        "view=ablation",
        "Ablation",
        (("ablation", _select("treatment")), ("damage", _select("outcome"))),
    ),
    (
        "view=matrices",
        "Views",
        tuple(
            (view, _press(f"[data-view={view}]"))
            for view in ("pair", "training", "scores", "tokens", "ablation")
        ),
    ),
)
"""What is opened, what it is called, and its clicks: name and JavaScript."""


class Page:
    """A page in a headless Chromium, and what its thread computes."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.browser = webdriver.Chrome(options=options, service=service)
        self.browser.set_script_timeout(30)
        self.browser.set_window_size(1400, 1000)
        self.browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

    def open(self, url: str) -> float:
        """Open a page; return the seconds until its view is drawn."""
        self.browser.get("about:blank")
        started = time.perf_counter()
        self.browser.get(url)
        while True:
            if self.browser.execute_script(
                "return document.documentElement.dataset.drawn !== undefined"
                " && document.getElementById('figures').getAttribute('aria-busy') === 'false'"
                " || !document.getElementById('problem').hidden"
            ):
                break
            time.sleep(0.01)
        taken = time.perf_counter() - started
        if problem := self.browser.execute_script(
            "return document.getElementById('problem').textContent"
        ):
            raise SystemExit(f"{url}: {problem}")
        return taken

    def click(self, script: str) -> tuple[float, float]:
        """Click; return the milliseconds until the next frame, and those of the page's thread."""
        before = self._thread()
        taken = self.browser.execute_async_script(_MEASURED, script)
        return taken, 1000 * (self._thread() - before)

    def _thread(self) -> float:
        found = self.browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(float(each["value"]) for each in found if each["name"] == "TaskDuration")


def clicks(place: Path) -> dict[str, Any]:
    """Export a large catalog, and time every kind of click on the page."""
    from explored_study import write_explored_study

    from blockcoupling.catalog import open_catalog
    from blockcoupling.explore.export import write_export

    models = {
        f"model-{n:02d}": {
            "blocks": BLOCKS,
            "dimension": 1024,
            "parameters": int(1e7 * 1.2**n),
            "family": FAMILIES[n % len(FAMILIES)],
        }
        for n in range(MODELS)
    }
    file = place / "page.html"
    there = place / "study" / "catalog" / "explored.yml"
    catalog = (
        open_catalog(there)
        if there.exists()
        else write_explored_study(place / "study", models, STEPS, k=10)
    )
    started = time.perf_counter()
    written = write_export([catalog], ["large"], file, title="Large")
    exporting = time.perf_counter() - started
    page, rows = Page(place / "profile"), []
    opened = [page.open(file.as_uri()) for _ in range(REPEATS)]
    for address, view, kinds in CLICKS:
        for name, script in kinds:
            page.open(f"{file.as_uri()}#{address}")
            taken = [page.click(script) for _ in range(REPEATS if view != "Views" else 1)]
            first, rest = taken[0], taken[1:] or taken
            row = {
                "view": view,
                "click": name,
                "first": first,
                "again": [median(column) for column in zip(*rest, strict=True)],
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    page.browser.quit()
    return {
        "bytes": written.bytes,
        "left out": written.left_out,
        "exporting": exporting,
        "opening": opened,
        "clicks": rows,
    }


def opening(place: Path) -> dict[str, Any]:
    """Serve a catalog of many prompts, open every view, and read the server's largest memory."""
    from benchmarks.many_prompts import write_catalog

    catalog = place / "prompts" / "catalog" / "catalog.yml"
    if not catalog.exists():
        write_catalog(place / "prompts", WIDE, PROMPTS)
    command = [sys.executable, "-m", "blockcoupling", "explore", str(catalog), "--port", "0"]
    result: dict[str, Any] = {}
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        result["server starts"] = time.perf_counter() - started
        try:
            page = Page(place / "profile")
            for view in ("matrices", "pair", "training", "scores"):
                taken = [page.open(f"{said.split()[1]}#view={view}") for _ in range(2)]
                result[view] = {"seconds": taken, "bytes": _peak(server.pid)}
                print(view, result[view], flush=True)
            page.browser.quit()
        finally:
            server.send_signal(signal.SIGINT)
    return result


def _peak(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0])


MEASURED = {"clicks": clicks, "opening": opening}
HEADING = "## How fast it is"


def section(found: dict[str, Any]) -> str:
    """The section of the page about what was measured so far."""
    said = [
        HEADING,
        "Measured by `python -m benchmarks.explorer`, on two cores.",
    ]
    if one := found.get("opening"):
        head = f"A catalog of {WIDE} models at {PROMPTS:,} prompts, by the server ({one['day']})."
        views = {name: each for name, each in one.items() if isinstance(each, dict)}
        said += [
            f"{head} It starts in {one['server starts']:.1f} s. "
            "Goal of the first view: 3 s and 1 GB.",
            "| view | first, s | again, s | server's peak memory, MB |\n|---|--:|--:|--:|\n"
            + "\n".join(
                f"| {name} | {each['seconds'][0]:.1f} | {each['seconds'][1]:.1f} "
                f"| {each['bytes'] / 1e6:.0f} |"
                for name, each in views.items()
            ),
        ]
    if one := found.get("clicks"):
        said += [
            f"{MODELS} models of {BLOCKS} blocks, {len(STEPS)} checkpoints and two datasets, as "
            f"one file of {one['bytes'] / 1e6:.1f} MB ({one['day']}). It opens in "
            f"{median(one['opening']):.1f} s. {one['left out']} Below: milliseconds from a click "
            "to the next frame, and in brackets those that the page's thread computed. Goal: below "
            "100. Figures further than half a screen away are drawn when they come nearer.",
            "| view | click | first | again |\n|---|---|--:|--:|\n"
            + "\n".join(
                f"| {each['view']} | {each['click']} | {_pair(each['first'])} "
                f"| {_pair(each['again'])} |"
                for each in one["clicks"]
            ),
        ]
    return "\n\n".join(said) + "\n"


def _pair(taken: list[float]) -> str:
    return f"{taken[0]:.0f} ({taken[1]:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*MEASURED, []], help="default: all")
    parser.add_argument("--place", type=Path, help="a directory to keep the study in")
    chosen = parser.parse_args()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen.what or MEASURED:
        with tempfile.TemporaryDirectory() as temporary:
            place = chosen.place or Path(temporary)
            place.mkdir(parents=True, exist_ok=True)
            result[name] = MEASURED[name](place) | {"day": str(date.today())}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    page = REPOSITORY / "docs" / "explorer.md"
    page.write_text(f"{page.read_text().split(HEADING)[0].rstrip()}\n\n{section(result)}")


if __name__ == "__main__":
    main()
