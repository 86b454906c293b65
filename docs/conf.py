"""
How the documentation is built: `sphinx-build -W --keep-going -n -b html docs
docs/_build/html`.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import txsession
import txsession.testing

project = "txsession"
author = "The txsession developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
version = release = txsession.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

html_theme = "alabaster"
html_title = "txsession"
html_theme_options = {
    "description": "Server-side sessions for Twisted Web and Klein",
    "fixed_sidebar": True,
    "page_width": "66rem",
    "sidebar_width": "15rem",
    "show_relbars": True,
}
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["txsession.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"

# The API reference links to txsession's own names and to no others: what belongs
# to Python, Twisted or attrs appears as it is written.
nitpick_ignore_regex = [("py:.*", r"(?!txsession\.).*")]

# Docstrings.  They are written in Epytext, as Twisted's are; what is used of it
# here is turned into reStructuredText.

_FIELDS = {
    "param": "param",
    "ivar": "ivar",
    "raise": "raises",
    "return": "return",
}
_FIELD = re.compile(r"^@(param|ivar|raise|return)( [\w.]+)?:\s*", re.MULTILINE)
_MARKUP = re.compile(r"([LCI])\{([^{}]*)\}|(?<!`)`([^`<>]+)`(?!`)")


TESTING = {f"testing.{name}" for name in txsession.testing.__all__}


def _asReference(text: str) -> str:
    label, _, target = text.partition("<")
    label = label.strip()
    name = (target.rstrip(">") or label).removeprefix("txsession.")
    if name == "SessionCookie":
        return f":py:obj:`{label} <txsession.session.SessionCookie>`"
    if name in txsession.__all__ or name in TESTING:
        return f":py:obj:`{label} <txsession.{name}>`"
    return f"``{label}``"


def _asRST(match: re.Match[str]) -> str:
    kind, text, name = match.groups()
    if name is not None or kind == "L":
        return _asReference(name or text)
    text = " ".join(text.split())
    return f"*{text}*" if kind == "I" else f"``{text}``"


def translate(docstring: str) -> str:
    """
    A docstring in reStructuredText.
    """
    body = _MARKUP.sub(_asRST, docstring)
    text, *fields = re.split(r"^(?=@)", body, flags=re.MULTILINE)
    return text.rstrip() + "\n\n" + "".join(_asField(field) for field in fields)


def _asField(field: str) -> str:
    match = _FIELD.match(field)
    assert match is not None, field
    name = _FIELDS[match[1]] + (match[2] or "")
    first, _, rest = field[match.end() :].rstrip().partition("\n")
    indented = "".join(
        f"    {line}\n" if line else "\n" for line in dedent(rest).splitlines()
    )
    return f":{name}: {first}\n{indented}"


def _translate(
    app: object, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    lines[:] = [*translate("\n".join(lines)).splitlines(), ""]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _translate)
