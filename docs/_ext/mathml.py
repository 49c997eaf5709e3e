"""Formulas as MathML, which browsers draw themselves: no script, no font and no network when a page is read."""

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

_logger = logging.getLogger(__name__)

# What docutils' converter does not know, and what stands for it; sizes of brackets and sums are the browser's choice.
_REWRITES = (
    (re.compile(r"\\(?:textstyle|displaystyle)(?![a-zA-Z])\s*"), ""),
    (re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])\s*"), ""),
    (re.compile(r"\\tfrac\s*(\d)\s*(\d)"), r"\\tfrac{\1}{\2}"),
    (re.compile(r"\\dots(?![a-zA-Z])"), r"\\ldots"),
    (re.compile(r"\\top(?![a-zA-Z])"), r"\\mathsf{T}"),
    (re.compile(r"(?<![A-Za-z\\{])(OT|KL)(?![A-Za-z])"), r"\\mathrm{\1}"),
)


def to_mathml(latex: str, *, display: bool) -> str:
    """The MathML of a formula.

    Raises:
        ValueError: the converter does not know something in it.
    """
    for pattern, replacement in _REWRITES:
        latex = pattern.sub(replacement, latex)
    latex = " ".join(latex.split())
    try:
        found = latex2mathml.tex2mathml(latex, as_block=display)
    except Exception as error:  # it raises what it likes
        raise ValueError(f"no MathML can be made of the formula {latex}: {error}") from error
    return re.sub(r"\n\s*", "", str(found))


def _made(node: nodes.Element, *, display: bool) -> str:
    try:
        return to_mathml(node.astext(), display=display)
    except ValueError as error:
        _logger.warning("%s", error, location=node)
        return f"<code>{escape(node.astext())}</code>"


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_made(node, display=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_made(node, display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; `html_math_renderer = "mathml"` chooses it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
