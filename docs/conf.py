"""How the documentation is built: `make docs`, or `make docs-quick` without running the gallery."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

import markovot  # noqa: E402 (the path is for the extensions beside this file)

project = "markovot"
author = "The markovot authors"
copyright = "the markovot authors"
release = version = markovot.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "mathml",
    "docstrings",
    "commandline",
]
exclude_patterns = ["_ext", "**/README.*", ".*"]
root_doc = "index"
nitpicky = False
# An entry of the gallery's configuration is a function, which cannot be kept between builds.
suppress_warnings = ["config.cache"]

# --- pages
myst_enable_extensions = ["dollarmath", "deflist", "attrs_block"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# --- the source's docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
add_module_names = True  # they are the paths to import from
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# --- the pages' Python runs; the docstrings' examples do so in the test suite
doctest_test_doctest_blocks = ""
doctest_global_setup = """
import importlib.util
import warnings

import torch


def lacks(module):
    return importlib.util.find_spec(module) is None


torch.set_printoptions(precision=4)
"""

# --- gallery
sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/plot_",
    "within_subsection_order": "gallery_order.Order",
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
    "capture_repr": (),
    "remove_config_comments": True,
    "show_memory": False,
    "download_all_examples": False,
    "abort_on_example_error": False,
    "matplotlib_animations": (True, "jshtml"),
    "write_computation_times": False,
}

# --- appearance
html_theme = "furo"
html_title = f"markovot {release}"
html_static_path = ["_static"]
html_css_files = ["markovot.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
