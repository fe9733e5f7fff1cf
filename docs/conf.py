"""The documentation site: `make docs` builds it into build/docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated_pages

import blockcoupling

project = "blockcoupling"
author = "The blockcoupling developers"
version = release = blockcoupling.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["generated/gallery/*.ipynb", "generated/gallery/*.py", "findings/*.py"]
nitpicky = True
# Other packages' pages are not at hand: the site is built offline.
nitpick_ignore_regex = [("py:.*", r"(?!blockcoupling).*"), ("py:.*", r"blockcoupling\..*\..*")]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "blockcoupling"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_sidebars = {f"generated/{page}": [] for page in ("keys", "kinds", "command-line")}  # wide
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
suppress_warnings = ["config.cache", "myst.header", "mystnb.unknown_mime_type"]


def setup(app):
    """Write the pages that the code decides, before Sphinx looks for pages."""
    app.connect("builder-inited", lambda app: generated_pages.write(Path(app.srcdir)), priority=1)
    app.connect("source-read", generated_pages.relink)
    app.connect("source-read", generated_pages.arrows_as_tables)
