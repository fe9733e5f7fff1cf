"""The page: one HTML file, with its modules either as files of a server or inside."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources

from blockcoupling.errors import UserError

_FOLDER = resources.files("blockcoupling.explore") / "page"
_SAME = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
_SERVED = f"default-src 'none'; script-src 'self' 'unsafe-inline'; connect-src 'self'; {_SAME}"
_EXPORTED = f"default-src 'none'; script-src 'unsafe-inline' data: blob:; {_SAME}"
"""What the browser lets the page do: an exported file can fetch nothing at all."""


def modules() -> dict[str, str]:
    """Return the modules of the page by name."""
    files = [each for each in _FOLDER.iterdir() if each.name.endswith(".js")]
    return {
        each.name.removesuffix(".js"): each.read_text(encoding="utf-8")
        for each in sorted(files, key=lambda each: each.name)
    }


def library() -> bytes:
    """Return plotly.js, from the package plotly.

    Raises:
        UserError: that package has no such file.
    """
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    if "plotly.js" not in text[:200]:
        raise UserError("the package plotly does not contain plotly.js: install plotly 7")
    return text.encode()


def served(title: str) -> str:
    """Return the page as a server sends it: modules and payloads are asked for."""
    return _page(title, {name: f"./page/{name}.js" for name in modules()}, _SERVED, ())


def exported(title: str, parts: Mapping[str, str]) -> str:
    """Return the page with everything inside.

    Args:
        title: its heading.
        parts: by key, payloads as :func:`compressed` writes them.
    """
    imports = {
        name: f"data:text/javascript;base64,{base64.b64encode(text.encode()).decode()}"
        for name, text in modules().items()
    }
    every = {"plotly": compressed(library()), **parts}
    data = (
        f'<script type="application/gzip" id="data:{escape(key)}">{text}</script>'
        for key, text in every.items()
    )
    return _page(title, imports, _EXPORTED, data)


def compressed(content: bytes) -> str:
    """Return bytes as gzip in base64; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _page(title: str, imports: Mapping[str, str], policy: str, data: Iterable[str]) -> str:
    style = (_FOLDER / "style.css").read_text(encoding="utf-8")
    named = {"imports": {f"explore/{name}": url for name, url in imports.items()}}
    filled = {
        "title": escape(title),
        "policy": policy,
        "style": f"<style>\n{style}</style>",
        "imports": f'<script type="importmap">{json.dumps(named)}</script>',
        "data": "\n".join(data),
    }
    page = (_FOLDER / "index.html").read_text(encoding="utf-8")
    for name, text in filled.items():
        page = page.replace(f"{{{{ {name} }}}}", text)
    return page
