"""The site of these pages: `sphinx-build -W docs OUT`."""

import sys
from pathlib import Path

from phosphene.versions import package_version

sys.path.append(str(Path(__file__).parent / "_extensions"))

project = "phosphene"
author = "The phosphene contributors"
version = release = package_version()

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_pages", "docstrings", "repository_links"]
exclude_patterns = ["_extensions", "**/.*", "search.md"]  # search.md is finding.md

html_theme = "pydata_sphinx_theme"
html_title = "phosphene"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "show_prev_next": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
}
html_sidebars = {"index": []}

# Links to headings are those of GitHub: `quality.md#noise`.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]  # the class of the gallery

# Notebooks are run by tests/test_docs_notebooks.py at few steps; the pictures on their pages are files.
nb_execution_mode = "off"

smartquotes = False  # which make of --option another word
default_role = "literal"  # what stands in single backticks in docstrings
napoleon_use_rtype = False  # what is returned is said in words
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
