"""Docstrings as they stand in the source, for Sphinx: `$$...$$` and `$...$` are formulas, single backticks code.

Code that is the name of something public becomes a link to it, in docstrings and on pages alike.
"""

import dataclasses
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.transforms.post_transforms import SphinxPostTransform

_BLOCK = re.compile(r"^(?P<indent>[ ]*)\$\$(?P<formula>.*?)\$\$(?P<rest>[.,;]?)[ ]*$", re.DOTALL | re.MULTILINE)
# In one pass, so that none is taken for a part of another: a formula, code, and a shape such as (*batch, n, m).
_INLINE = re.compile(
    r"(?<![\$\\])\$(?!\s)(?P<formula>[^\$]+?)(?<!\s)\$(?!\$)"
    r"|(?<![`:\w])`(?P<code>[^`]+)`(?!`)"
    r"|(?P<shape>\(\*\w+[^()`]*\))"
)
_EXAMPLE = re.compile(r"^[ ]*>>>")
# What may be named without its module, and where it is documented.
_ROOMS = tuple(
    f"markovot.{room}" for room in ("pairwise", "learning", "analysis.matching", "analysis.explain", "datasets")
)


def translate(lines: list[str]) -> list[str]:
    """A docstring's lines in reStructuredText; examples are left as they are."""
    prose: list[str] = []
    result: list[str] = []
    example = False
    for line in lines:
        if _EXAMPLE.match(line) and not example:
            result += _prose(prose)
            prose, example = [], True
        if example:
            result.append(line)
            example = bool(line.strip())
        else:
            prose.append(line)
    return result + _prose(prose)


def _prose(lines: list[str]) -> list[str]:
    text = _BLOCK.sub(_display, "\n".join(lines))
    return _INLINE.sub(_role, text).split("\n") if lines else []


def _role(found: re.Match[str]) -> str:
    if found["formula"]:
        return f":math:`{' '.join(found['formula'].split())}`"
    after = found.string[found.end() : found.end() + 1]  # a letter may follow a literal only behind an escaped blank
    return f"``{' '.join((found['code'] or found['shape']).split())}``" + ("\\ " if after.isalnum() else "")


def _display(found: re.Match[str]) -> str:
    indent = found["indent"]
    formula = " ".join(found["formula"].split()) + found["rest"]
    return f"\n{indent}.. math::\n\n{indent}   {formula}\n"


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    # What a module's docstring says to readers of the source, its page says to readers of the site.
    lines[:] = [] if what == "module" else translate(lines)


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what NamedTuple says of its fields: their own docstring has told."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Results are made by the functions that return them: how they are constructed is nobody's business."""
    if name == "markovot.MarkovChain":
        return ("", None)  # made by its class methods
    if what != "class" or name.startswith("markovot.costs."):
        return None
    results = dataclasses.is_dataclass(obj) and all(
        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(obj)[:2]
    )
    return ("", None) if results or hasattr(obj, "_fields") else None


class LinkNames(SphinxPostTransform):
    """Make links of code that is the name of something documented."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs: Any) -> None:
        """Wrap each such piece of code."""
        known = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            if "code" not in node["classes"] and node.parent is not None and not _linked(node):
                self._link(node, known)

    def _link(self, node: nodes.literal, known: Any) -> None:
        name = node.astext().removesuffix("()").removeprefix("markovot.")
        places = [f"markovot.{name}", *(f"{room}.{name}" for room in _ROOMS)]
        target = next((place for place in places if place in known), None)
        if target is None or not name.isascii() or known[target].objtype == "module":
            return
        reference = addnodes.pending_xref(
            "",
            refdomain="py",
            reftype="obj",
            reftarget=target,
            refexplicit=True,
            refdoc=self.env.current_document.docname,
        )
        node.replace_self(reference)
        reference += node


def _linked(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, nodes.reference | addnodes.pending_xref | nodes.title | addnodes.desc_signature):
            return True
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon reads the sections
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
