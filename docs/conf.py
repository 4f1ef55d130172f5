import re
from typing import Any

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


def setup(app: Any) -> None:
    app.connect("source-read", add_table)
