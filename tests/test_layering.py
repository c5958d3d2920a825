"""The shape of the source: who may import whom, what the core may not do, how long a file may be.

The reasons are in docs/coding.md.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Module prefix → folder.  `sccache_py` is listed last: the other two are linked into its folder.
PACKAGES = {"sccache_py.server": "server", "sccache_py.client": "client", "sccache_py": "sccache_py"}

# What the core may import from the standard library: nothing here opens, waits, runs or asks.  A module that
# does not act either may join; what acts belongs into server/ or client/.
PURE = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy",
    "dataclasses", "difflib", "enum", "errno", "fnmatch", "functools", "hashlib", "heapq", "itertools", "json", "math",
    "operator", "os", "posixpath", "re", "shlex", "stat", "string", "struct", "textwrap", "tomllib", "types",
    "typing",
}  # fmt: skip

# Spelling and joining of names.  exists and realpath look at files, abspath and relpath ask for the cwd.
PURE_PATH = {
    "basename", "commonpath", "commonprefix", "dirname", "isabs", "join", "normpath", "sep", "split",
    "splitext",
}  # fmt: skip
PURE_OS = {"fsencode", "fsdecode", "path", "sep", "fspath", "PathLike"}

ACTING_BUILTINS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

# Third-party packages that only compute.  The others may not be imported by the core at all.
PURE_THIRD_PARTY = {"msgpack", "xxhash", "zstandard"}

# Each third-party package is imported in one file.  Where it is two, the reason stands here.
SEVERAL_IMPORTERS: dict[str, tuple[int, str]] = {}

HOME_OF = {"diskcache": "server/store/disk.py"}

# The floors of the server, the lowest first: a folder, or a file of server/ itself, imports from those below it alone.
FLOORS = [
    {"filesystem", "process"},
    {"running", "store"},
    {"jobserver", "toolchains"},
    {"jobs"},
    {"answers"},
    {"planning"},
    {"hit", "serving"},
    {"miss"},
    {"pipeline"},
    {"app"},
]

LINES = 500
EXCUSE = "Longer than 500 lines because"


class Import(NamedTuple):
    module: str  # absolute
    line: int


def package_of(path: Path) -> str:
    """The module name of a file below one of PACKAGES; `sccache_py.server.store` for its __init__.py."""
    for prefix, folder in PACKAGES.items():
        if path.is_relative_to(ROOT / folder):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            return ".".join([prefix, *(part for part in parts if part != "__init__")])
    raise AssertionError(path)


def python_files(folder: str) -> list[Path]:
    # rglob follows no links (before Python 3.13 by itself, since then by default).
    return sorted(path for path in (ROOT / folder).rglob("*.py") if path.resolve() == path)


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, also those inside functions and under TYPE_CHECKING."""
    parents = package_of(path).split(".")
    if path.name != "__init__.py":
        parents = parents[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(module, node.lineno)
            # `from sccache_py import server` names a module too.
            for name in node.names:
                yield Import(f"{module}.{name.name}", node.lineno)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


ALL = [path for folder in PACKAGES.values() for path in python_files(folder)]
CORE = python_files("sccache_py")


def test_the_walk_sees_all_three_packages_and_no_file_twice():
    """Otherwise the tests below could pass by looking at nothing."""
    assert {path.relative_to(ROOT).parts[0] for path in ALL} == {"sccache_py", "server", "client"}
    assert len(ALL) == len(set(ALL))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("server", ["sccache_py.client"]),
        ("client", ["sccache_py.server"]),
        ("sccache_py", ["sccache_py.server", "sccache_py.client"]),
    ],
)
def test_server_and_client_meet_only_in_the_core(folder, forbidden):
    """Imports go client -> sccache_py <- server, so that each half can be read, tested and replaced alone."""
    wrong = [
        f"{place(path, line)} imports {module}"
        for path in python_files(folder)
        for module, line in imports(path)
        if any(within(module, package) for package in [*forbidden, "server", "client"])
    ]
    assert not wrong, "\n".join(wrong)


def server_floor(module: str) -> int | None:
    """Which of FLOORS a module stands on; None for what is not the server's."""
    parts = module.split(".")
    if parts[:2] != ["sccache_py", "server"] or len(parts) < 3:
        return None
    return next((n for n, rooms in enumerate(FLOORS) if parts[2] in rooms), None)


def test_every_room_of_the_server_stands_on_a_floor():
    """Else the test below would pass over it."""
    rooms = {package_of(path).split(".")[2] for path in python_files("server") if package_of(path) != "sccache_py.server"}
    assert rooms == set().union(*FLOORS)


def test_the_server_imports_from_floors_below():
    """What a folder needs can be read before it, and no two folders need each other."""
    wrong = []
    for path in python_files("server"):
        own, room = server_floor(package_of(path)), package_of(path).split(".")[2:3]
        for module, line in imports(path):
            floor = server_floor(module)
            if own is not None and floor is not None and module.split(".")[2:3] != room and floor >= own:
                wrong.append(f"{place(path, line)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_the_core_imports_nothing_that_acts():
    """Its tests then need neither files nor processes nor time, and its values can be computed anywhere."""
    wrong = [
        f"{place(path, line)} imports {module}"
        for path in CORE
        for module, line in imports(path)
        if (top := module.split(".")[0]) != "sccache_py" and top not in PURE | PURE_THIRD_PARTY
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_takes_only_the_spelling_of_names_from_os():
    """`os` is allowed for fsencode and os.path.join; everything else in it asks the system something."""
    wrong = []
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="os"), attr=name) if name not in PURE_OS:
                    wrong.append(f"{place(path, node.lineno)} uses os.{name}")
                case (
                    ast.Attribute(value=ast.Attribute(value=ast.Name(id="os"), attr="path"), attr=name)
                    | ast.Attribute(value=ast.Name(id="posixpath"), attr=name)
                ) if name not in PURE_PATH:
                    wrong.append(f"{place(path, node.lineno)} uses {name} of os.path")
                case ast.ImportFrom(module="os" | "os.path" | "posixpath" as module, names=names):
                    pure = PURE_OS if module == "os" else PURE_PATH
                    acting = [n.name for n in names if n.name not in pure]
                    wrong += [f"{place(path, node.lineno)} imports {name}" for name in acting]
                case ast.Import(names=names):
                    # Under another name the attributes above would not be seen.
                    wrong += [
                        f"{place(path, node.lineno)} renames {n.name}"
                        for n in names
                        if n.asname and n.name in {"os", "os.path", "posixpath"}
                    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_calls_no_builtin_that_acts():
    """open() and print() need no import."""
    wrong = [
        f"{place(path, node.lineno)} calls {node.func.id}"
        for path in CORE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ACTING_BUILTINS
    ]
    assert not wrong, "\n".join(wrong)


def third_party() -> dict[str, set[str]]:
    """Package → the files that import it."""
    importers: dict[str, set[str]] = defaultdict(set)
    for path in ALL:
        for module, _ in imports(path):
            top = module.split(".")[0]
            if top != "sccache_py" and top not in sys.stdlib_module_names:
                importers[top].add(str(path.relative_to(ROOT)))
    return importers


def test_each_dependency_is_imported_in_one_file():
    """A library that is known in one place can be replaced, and its exceptions stop there."""
    wrong = {package: sorted(files) for package, files in third_party().items() if len(files) > SEVERAL_IMPORTERS.get(package, (1, ""))[0]}
    assert wrong == {}


def test_a_dependency_with_a_home_is_imported_there():
    """diskcache is reached through the store's interface only; other stores come later."""
    found = third_party()
    assert {package: found.get(package) for package in HOME_OF} == {p: {home} for p, home in HOME_OF.items()}


def test_what_is_declared_is_imported_and_what_is_imported_is_declared():
    """A missing declaration breaks a fresh install, a left-over one costs every user a download."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert set(third_party()) == declared


def header(text: str, suffix: str) -> str:
    """The docstring of a Python file or the first comment of a C file, as one line."""
    if suffix == ".py":
        found = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.search(r"/\*.*?\*/", text, re.DOTALL)
        found = re.sub(r"^\s*\*", "", comment[0], flags=re.MULTILINE) if comment else ""
    return " ".join(found.split())


def test_long_files_say_why_they_are_long():
    """About 300 lines is comfortable; beyond 500 the reader deserves a reason, in the file's own header."""
    folders = ["sccache_py", "server", "client", "tests", "benchmarks", "packaging"]
    files = {
        path for f in folders for s in ("py", "c", "h") for path in (ROOT / f).rglob(f"*.{s}") if "work" not in path.relative_to(ROOT).parts
    }
    wrong = []
    for path in sorted(path for path in files if path.resolve() == path):
        text = path.read_text()
        lines = len(text.splitlines())
        if lines > LINES and EXCUSE not in header(text, path.suffix):
            wrong.append(f"{path.relative_to(ROOT)} has {lines} lines")
    assert not wrong, "\n".join(wrong)
