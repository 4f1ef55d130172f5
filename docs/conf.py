import re
from pathlib import Path
from typing import Any

from sphinx_gallery.sorting import ExplicitOrder

from noisyfit import __version__
from noisyfit.benchmark.contenders import package_methods

project = "noisyfit"
author = "the noisyfit developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "obj"
# Docstrings list literature that their text need not cite.
suppress_warnings = ["ref.citation", "ref.footnote", "config.cache"]

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections name the types
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "within_subsection_order": ExplicitOrder(
        [
            "plot_find_wrong_labels.py",
            "plot_images.py",
            "plot_votes.py",
            "plot_displays.py",
            "plot_choose_without_clean_labels.py",
            "plot_fine_tuning.py",
            "plot_label_diffusion.py",
            "plot_echoalign.py",
            "plot_out_of_distribution.py",
        ]
    ),
    "parallel": 2,
    "abort_on_example_error": True,
    "show_memory": False,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"noisyfit {version}"
html_show_sourcelink = False


# ------------------------------------------------ the table of methods, read from their docstrings

HEAD = """.. list-table::
   :header-rows: 1
   :widths: 26 37 37

   * - Class
     - Idea
     - Cost
"""


def row_of(method: type[Any]) -> str:
    doc = method.__doc__ or ""
    cost = re.search(r"Cost:\s(.+?)\n\n", doc, re.DOTALL)
    assert cost, f"{method.__name__} must say its cost"
    cells = f":class:`~noisyfit.{method.__name__}`", doc.split("\n\n")[0], cost[1]
    name, idea, price = (" ".join(cell.split()) for cell in cells)
    return f"   * - {name}\n     - {idea}\n     - {price}\n"


def add_table(app: Any, docname: str, source: list[str]) -> None:
    if docname == "methods/index":
        source[0] += HEAD + "".join(map(row_of, package_methods().values()))


# ------------------------------------------------------------- the picture of the first page

STORED, DRAWN = "tables.png", "auto_examples/images/sphx_glr_plot_find_wrong_labels_001.png"


def add_picture(app: Any, docname: str, source: list[str]) -> None:
    if docname == "index" and Path(app.srcdir, DRAWN).exists():  # not with plot_gallery=0
        source[0] = source[0].replace(STORED, DRAWN)


def setup(app: Any) -> None:
    app.connect("source-read", add_table)
    app.connect("source-read", add_picture)
