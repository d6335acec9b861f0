"""An experiment's code: its file, and the modules beside it that it imports.

Modules beside an experiment's file, in its folder or below, are imported under names that are this loading's
alone, so that those of two experiments never mix; nothing is put on Python's path. An installed package goes
before a module of its name. In a run's folder they lie in code/, and nothing else there is imported:
RUN/experiment.py, RUN/code/net.py.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxmodels.runs import files

FOLDER = "code"  # in a run's folder
MANY = 1000  # files beside an experiment's, at most
PREFIX = "jaxmodels_experiment_"


class Code:
    """One loading of an experiment's file.

    name: of its module, and the prefix of the names of those beside it.
    """

    def __init__(self, file: Path, name: str = ""):
        self.file = Path(file)
        in_run = self.file.name == "experiment.py" and (self.file.parent / "knobs.json").exists()
        self.root = self.file.parent / FOLDER if in_run else self.file.parent
        self._trusted = (
            None if in_run else self.root
        )  # a run's folder may come from elsewhere: it is read without links
        self.name = name or _free(PREFIX + re.sub(r"\W", "_", self.file.stem))
        self._texts: dict[Path, str] = {}
        self._found: dict[str, bool] = {}
        _CODES[self.name] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return Code, (self.file, self.name)

    @property
    def source(self) -> str:
        """The text of the experiment's file."""
        return self.text(self.file)

    def text(self, path: Path) -> str:
        """A file's text, read once."""
        if path not in self._texts:
            data = files.read_bytes(path) if self._trusted is None else path.read_bytes()
            self._texts[path] = importlib.util.decode_source(data)
        return self._texts[path]

    def run(self) -> ModuleType:
        """The module of the experiment's file, after it was executed."""
        loader = Loader(self, self.file)
        spec = importlib.util.spec_from_file_location(self.name, self.file, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = module  # dataclasses look their module up
        loader.exec_module(module)
        return module

    def beside(self) -> dict[str, str]:
        """The texts of the modules beside the file that it imports, directly or not, by path below
        the folder.
        """
        seen: dict[Path, str] = {}
        todo: list[tuple[Path, tuple[str, ...]]] = [(self.file, ())]
        while todo:
            path, package = todo.pop()
            for parts in _imports(ast.parse(self.text(path), str(path)), package, self._is_beside):
                for i in range(1, len(parts) + 1):
                    found = self.find(parts[:i])
                    if found is None or found in seen or found == self.file:
                        continue
                    if found.is_file():
                        seen[found] = self.text(found)
                        todo.append((found, parts[:i] if found.name == "__init__.py" else parts[: i - 1]))
        return {path.relative_to(self.root).as_posix(): text for path, text in sorted(seen.items())}

    def find(self, parts: Sequence[str]) -> Path | None:
        """The file of a module beside the experiment's, or its folder where that has no __init__.py."""
        base = self.root.joinpath(*parts)
        found = next(
            (p for p in (base / "__init__.py", base.with_name(f"{base.name}.py")) if p.is_file()), None
        )
        if found is None and base.is_dir() and any(base.glob("*.py")):
            found = base
        if found is not None and self._trusted is None:
            below = found.relative_to(self.root)
            if found.resolve() != self.file.parent.resolve() / FOLDER / below:
                raise files.BadFile(
                    f"{found}: got a link on the way to it; expected files and folders. Copy what it names, "
                    "if you trust it"
                )
        return found

    def _is_beside(self, top: str) -> bool:
        """Whether a name means a module beside the file: one is there, and no installed package has
        this name.
        """
        if top not in self._found:
            free = top not in sys.stdlib_module_names and top != __name__.partition(".")[0]
            self._found[top] = free and self.find((top,)) is not None and not self._is_installed(top)
        return self._found[top]

    def _is_installed(self, top: str) -> bool:
        first = sys.path[0] if sys.path else ""  # a script's folder, or the working folder
        local = {Path().resolve(), self.root.resolve()}
        paths = [p for i, p in enumerate(sys.path) if p and not (i == 0 and Path(first).resolve() in local)]
        for finder in sys.meta_path:
            if finder is importlib.machinery.PathFinder:
                spec = importlib.machinery.PathFinder.find_spec(top, paths)
            else:
                spec = finder.find_spec(top, None) if hasattr(finder, "find_spec") else None
            if spec is not None and spec.loader is not None and spec.origin is not None:
                return True
        return False

    def import_(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Python's __import__ for the modules of this code."""
        if level or not self._is_beside(name.partition(".")[0]):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = importlib.import_module(f"{self.name}.{name}")
        if fromlist:
            return builtins.__import__(module.__name__, globals, locals, fromlist, 0)
        return sys.modules[f"{self.name}.{name.partition('.')[0]}"]


class Loader(importlib.abc.SourceLoader):
    """Executes a module of an experiment's code from its text alone: no compiled file is read or written."""

    def __init__(self, code: Code, path: Path):
        self.code, self.path = code, path

    def get_filename(self, fullname: str) -> str:
        """The module's file."""
        return str(self.path)

    def is_package(self, fullname: str) -> bool:
        """The experiment's own module counts as one: those beside it are below it, by name."""
        return self.path == self.code.file or self.path.name == "__init__.py"

    def get_data(self, path: Any) -> bytes:
        """A file's text as UTF-8."""
        return self.code.text(Path(path)).encode()

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        """The compiled text, in which no cookie names an encoding any more."""
        return super().source_to_code(self.code.text(self.path), path)

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module, whose imports are the code's own."""
        if self.is_package(module.__name__):
            module.__path__ = []  # what is below it is found by name, and by nobody else
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self.code.import_}
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules beside experiments' files under the names that their loading gave them."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if not rest or (code := _CODES.get(top)) is None or (found := code.find(rest.split("."))) is None:
            return None
        if found.is_dir():
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            return spec
        return importlib.util.spec_from_file_location(fullname, found, loader=Loader(code, found))


_CODES: dict[str, Code] = {}
sys.meta_path.insert(0, _Finder())


def _free(name: str) -> str:
    """The name, or one like it that no module has."""
    return next(
        free for n in itertools.count(1) if (free := f"{name}_{n}" if n > 1 else name) not in sys.modules
    )


def _imports(tree: ast.Module, package: tuple[str, ...], is_beside: Any) -> Iterator[tuple[str, ...]]:
    """The names of modules beside the file that a module in `package` may import, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")) for a in node.names if is_beside(a.name.partition(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = (*package[: len(package) - node.level + 1], *base)
            elif not is_beside(base[0]):
                continue
            yield base
            yield from ((*base, alias.name) for alias in node.names)


def read_beside(run: Path) -> dict[str, str]:
    """The modules in a run's folder that lay beside its experiment's file, by path below it."""
    root = Path(run) / FOLDER
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")) if root.is_dir() and not root.is_symlink() else ():
        if len(found) == MANY:
            raise files.BadFile(
                f"{root}: got more than {MANY:,} files; expected the modules of one experiment. Remove it"
            )
        found[path.relative_to(root).as_posix()] = files.read_text(path)
    return found


def shown(name: str) -> str:
    """A module's name as the experiment's author knows it."""
    return name.partition(".")[2] if name.startswith(PREFIX) else name
