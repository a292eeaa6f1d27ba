"""Code of a user's own, named ``my.py:Agent`` or ``package.module:Agent``, and loaded by the process that needs it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rapport.experiments.core.env_config import LOCAL

Returned = TypeVar("Returned")
_FORMS = "give FILE.py:NAME or package.module:NAME"


class OwnCodeError(ValueError):
    """Code of a user's own is missing, has raised an error or has returned what cannot be used; the message says which.

    Where that code raised an error itself, the message ends with the traceback, which no process then loses.
    """


@dataclass(frozen=True)
class OwnCode:
    """A class or a function in a file of a user's own.

    Attributes:
        name: of the class or function.
        digest: of the file and of the files under ``root`` that it imports: what is edited is another one.
        path: the file.
        root: folder of its imports, put first on the import path as Python does for a script.
        module: dotted name of the module, where it was given by that; empty for a file.
    """

    name: str
    digest: str
    path: Path = field(metadata=LOCAL)
    root: Path = field(metadata=LOCAL)
    module: str = field(default="", metadata=LOCAL)

    @classmethod
    def of(cls, given: str) -> OwnCode:
        """What a command line names.

        Raises:
            OwnCodeError: there is no such file or module, or it is not Python.
        """
        place, _, name = given.rpartition(":")
        if not place or not name.isidentifier():
            raise OwnCodeError(f"{given!r} names no class: {_FORMS}")
        if place.endswith(".py"):
            path = Path(place).expanduser().resolve()
            if not path.is_file():
                raise OwnCodeError(f"{given}: there is no file {path}; {_FORMS}")
            return cls(name, _digest(given, path, path.parent), path, path.parent)
        path, root = _module_file(given, place)
        return cls(name, _digest(given, path, root), path, root, place)

    @property
    def shown(self) -> str:
        """How it is named in tables and messages, e.g. ``my.py:Agent``."""
        return f"{self.module or self.path.name}:{self.name}"

    def load(self) -> Any:
        """Import the file where that has not happened in this process, and return the class or function.

        Raises:
            OwnCodeError: the file raises an error, or has no such name.
        """
        module = self.called(f"importing {self.path}", self._module)
        found = getattr(module, self.name, None)
        if not callable(found):
            own = [
                n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__
            ]
            has = f"it has {', '.join(own)}" if own else "it defines none"
            raise OwnCodeError(f"{self.shown}: {self.path} has no class or function {self.name!r}; {has}")
        return found

    def called(self, doing: str, function: Callable[..., Returned], *arguments: Any) -> Returned:
        """What a function of this code returns; see :func:`called`."""
        return called(self.shown, doing, function, *arguments, file=self.path)

    def _module(self) -> Any:
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        if self.module:
            return importlib.import_module(self.module)
        name = f"own_code_{self.path.stem}_{self.digest}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, self.path)
            assert spec is not None and spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[name])
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]


def called(
    who: str, doing: str, function: Callable[..., Returned], *arguments: Any, file: Path | None = None
) -> Returned:
    """Call a function of a user's own.

    Args:
        who: how the message names it, e.g. ``my.py:Agent``.
        doing: what is done, e.g. ``"train(env, transitions, seed)"``.
        function: is called with ``arguments``.
        *arguments: of the function.
        file: where its code is: the traceback begins there.

    Raises:
        OwnCodeError: the function raised an error, or wanted to end the process; its traceback stands in the message.
    """
    try:
        return function(*arguments)
    except OwnCodeError:
        raise
    except (Exception, SystemExit) as error:
        trace = own_trace = error.__traceback__
        while own_trace is not None and file is not None and own_trace.tb_frame.f_code.co_filename != str(file):
            own_trace = own_trace.tb_next
        lines = traceback.format_exception(type(error), error, own_trace or trace)
        text = str(traceback.TracebackException.from_exception(error))  # safe where the error's own __str__ is not
        said = f": {text.splitlines()[0]}" if text else ""
        raise OwnCodeError(f"{who}: {doing} raised {type(error).__name__}{said}\n\n{''.join(lines)}") from error


def _module_file(given: str, module: str) -> tuple[Path, Path]:
    """The file of a module, and the folder that its top package is in."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    spec = called(given, f"importing {module.rpartition('.')[0] or module}", _spec, module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise OwnCodeError(f"{given}: Python finds no module {module!r}; {_FORMS}")
    path = Path(spec.origin)
    return path, path.parents[module.count(".") + (path.name == "__init__.py")]


def _spec(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module + ".").startswith(error.name + "."):
            return None
        raise


def _digest(given: str, path: Path, root: Path) -> str:
    """Sixteen hex digits of a file and of the files under ``root`` that it imports, and they import."""
    texts: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in texts:
            continue
        texts[file] = file.read_bytes()
        try:
            tree = ast.parse(texts[file], str(file))
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            said = error.msg if isinstance(error, SyntaxError) else str(error)
            raise OwnCodeError(f"{given}: {file}{line} is no Python: {said}") from error
        waiting += _imported(tree, file, root)
    known = hashlib.sha256()
    for file in sorted(texts):
        known.update(f"{file.relative_to(root).as_posix()} {len(texts[file])}\n".encode() + texts[file])
    return known.hexdigest()[:16]


def _imported(tree: ast.AST, file: Path, root: Path) -> Iterator[Path]:
    """Files under ``root`` that a file imports, the packages they are in among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            base, names = root, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            prefix = f"{node.module}." if node.module else ""
            names = [f"{prefix}{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            places = (base.joinpath(*parts[:n]) for n in range(1, len(parts) + 1))
            found = (f for place in places for f in (place.with_suffix(".py"), place / "__init__.py"))
            yield from (f for f in found if f.is_file() and f.is_relative_to(root))


def is_own(given: str) -> bool:
    """Whether a name is one of a user's code, ``FILE.py:NAME`` or ``package.module:NAME``."""
    place, _, name = given.rpartition(":")
    return name.isidentifier() and (place.endswith(".py") or all(part.isidentifier() for part in place.split(".")))
