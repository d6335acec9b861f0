"""For mkdocs.yml: fields of linen modules and tuples as signatures, sizes of models, a paragraph for each explanation."""

import re
from typing import Any

import griffe

FIELDS = {"flax.linen.Module", "typing.NamedTuple"}  # a class of such a base has its fields as arguments, as a dataclass has
EXPLAINS = re.compile(r"(?<=[.:;])\n(?=\w[\w, ]*(\([^)]*\))?(: | {2,}\S)|\w+\([^)]*\) )")  # rate: …, loss(params, batch) …


class Fields(griffe.Extension):
    """Changes what was read from the source, before pages are made of it."""

    def on_class_instance(self, *, cls: griffe.Class, **rest: Any) -> None:
        """Marks a class whose fields are arguments, which griffe knows of decorated ones alone."""
        if any(not isinstance(base, str) and base.canonical_path in FIELDS for base in cls.bases):
            cls.decorators.append(griffe.Decorator(griffe.ExprName("dataclasses.dataclass"), lineno=None, endlineno=None))

    def on_attribute_instance(self, *, attr: griffe.Attribute, **rest: Any) -> None:
        """Shows sizes, which are partial calls and explain themselves."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and value.canonical_path == "functools.partial" and attr.docstring is None:
            attr.docstring = griffe.Docstring("With these fields.", parent=attr)

    def on_object(self, *, obj: griffe.Object, **rest: Any) -> None:
        """Parts paragraphs."""
        if obj.docstring is not None:
            obj.docstring.value = EXPLAINS.sub("\n\n", obj.docstring.value)
