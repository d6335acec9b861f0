"""The pages of the site that are made: the reference, from the package's docstrings, and the notebooks.

mkdocs build --strict calls on_files; `Lines` and `Fields` are for griffe, which reads the source.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parents[1] / "jaxmodels"
TITLES = {  # of a page, and its modules or packages, of which it shows all modules
    "Contracts": ["jaxmodels", "task", "pipeline", "experiment", "interfaces", "keys", "paths", "choices"],
    "State and step": ["state", "step", "alternating"],
    "Commands": ["commands", "options", "console"],
    "Optimizers": ["optim"],
    "Models": ["models"],
    "Layers": ["layers"],
    "Tasks": ["tasks"],
    "Scores": ["scores"],
    "Data": ["data"],
    "Decoding": ["decoding"],
    "Speech": ["speech"],
    "Trained models": ["inference"],
    "Serving": ["serving"],
    "Models from elsewhere": ["convert"],
    "Models for elsewhere": ["export"],
    "Training": ["training"],
    "Runs": ["runs"],
    "Analysis": ["analysis"],
    "Benchmark": ["bench"],
    "Devices": ["parallel"],
    "Processes": ["launch"],
    "Sweeps": ["sweeps"],
    "Reports": ["report"],
    "Plans": ["planning"],
}


# Bases of classes whose fields are arguments.
WITH_FIELDS = {"flax.linen.Module", "jaxmodels.layers.model.Model", "typing.NamedTuple"}


class Lines(griffe.Extension):
    """Keeps lines of a docstring that begin with what they explain: "seed: …", "init(key, batch) gives …"."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Ends the line before it as Markdown ends lines."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?<=\S)\n(?=\w+(\(.*?\) |: ))", "  \n", obj.docstring.value)


class Fields(griffe.Extension):
    """Shows fields of linen modules and of tuples as arguments, and sizes of models as partial calls."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Marks the class as a dataclass, which griffe knows of decorated ones alone."""
        if any(not isinstance(base, str) and base.canonical_path in WITH_FIELDS for base in cls.bases):
            cls.decorators.append(
                griffe.Decorator(griffe.ExprName("dataclasses.dataclass"), lineno=None, endlineno=None)
            )

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Shows partial calls, which explain themselves."""
        value = attr.value
        if (
            isinstance(value, griffe.ExprCall)
            and value.canonical_path == "functools.partial"
            and attr.docstring is None
        ):
            attr.docstring = griffe.Docstring("With these fields.", parent=attr)


def on_config(config: Any) -> Any:
    """Puts the reference into the navigation."""
    config["nav"].append({"Reference": ["api/index.md", *map(_uri, TITLES)]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the reference and a page for each notebook."""
    made = {_uri(title): _reference(title) for title in TITLES}
    made["api/index.md"] = "# Reference\n\n" + "".join(
        f"- [{title}]({Path(_uri(title)).name})\n" for title in TITLES
    )
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        made[notebook.src_uri.removesuffix("ipynb") + "md"] = _page(notebook)
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to a notebook lead to its page."""
    return re.sub(r"\]\(([\w/.]+)\.ipynb\)", r"](\1.md)", markdown)


def _uri(title: str) -> str:
    return f"api/{title.lower().replace(' ', '_')}.md"


def modules(name: str) -> list[str]:
    """Dotted names of a module, or of all public modules of a package."""
    folder = PACKAGE / name
    if not folder.is_dir():
        return ["jaxmodels" if name == "jaxmodels" else f"jaxmodels.{name}"]
    files = [file.relative_to(PACKAGE.parent).with_suffix("") for file in sorted(folder.rglob("[a-z]*.py"))]
    return [".".join(file.parts) for file in files]


def _reference(title: str) -> str:
    """A page with all modules of a title."""
    lines = [f"# {title}\n"]
    for name in TITLES[title]:
        if (PACKAGE / name).is_dir():
            lines += [f"::: jaxmodels.{name}\n    options:\n      members: false\n"]
        lines += [f"::: {module}\n" for module in modules(name)]
    return "\n".join(lines)


def _page(notebook: File) -> str:
    """A notebook's text and code, with what is kept of its output."""
    parts = []
    for cell in json.loads(notebook.content_string)["cells"]:
        source = "".join(cell["source"])
        parts += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"]
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            html = "".join(shown.get("text/html", []))
            text = "".join(output.get("text", shown.get("text/plain", [])))
            parts += [html or f"```text\n{text.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"
