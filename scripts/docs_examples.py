"""Reads docstrings' ``Example:`` sections as mkdocstrings reads ``Examples:``: text, and lines of ``>>>`` as code."""

import re

import griffe


class Examples(griffe.Extension):
    """Renames the section in every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
