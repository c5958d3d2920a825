"""What lands in the wheel and the source distribution, and whether an installed wheel works.

No network: the distributions are built with the setuptools of the environment that runs the tests, and the
fresh environments borrow its dependencies through a .pth file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"sccache_py": "sccache_py", "server": "sccache_py/server", "client": "sccache_py/client"}

pytestmark = pytest.mark.slow


class Dists(NamedTuple):
    sdist: Path
    wheel: Path


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] = os.environ) -> str:
    """What the command printed; its whole output if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the sources: building leaves build/ and *.egg-info behind."""
    copy = tmp_path_factory.mktemp("tree") / "sccache-py"
    made = shutil.ignore_patterns(".*", "build", "dist", "target", "work", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=made)
    return copy


@pytest.fixture(scope="module")
def dists(tree, tmp_path_factory) -> Dists:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=tree)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Dists(sdist, wheel)


def environment(where: Path) -> Path:
    """A virtual environment with the dependencies of this one, but not its sccache-py.  Returns its bin/."""
    venv.create(where, symlinks=True)
    lib = sysconfig.get_path("purelib", vars={"base": str(where)})
    # As a path in a .pth file, our own .pth files (an editable sccache-py) are not read.
    Path(lib, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return where / "bin"


def install(wheel: Path, bin: Path) -> None:
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        bin / "python",
        "install",
        "--no-index",
        "--no-deps",
        "--ignore-installed",
        "--quiet",
        wheel,
        cwd=bin,
    )


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def sources(suffix: str) -> set[str]:
    """The files of the three packages with that suffix, by their names in the source distribution."""
    return {str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{suffix}") if path.resolve() == path}


def test_the_wheel_has_exactly_the_modules_of_the_tree(dists):
    """The list of packages is written by hand: a new one is easily forgotten."""
    expected = {re.sub(r"^\w+", lambda m: FOLDERS[m[0]], name) for name in sources(".py")}
    assert {name for name in names_in(dists.wheel) if name.endswith(".py")} == expected


def test_the_wheel_carries_programs_and_no_sources(dists):
    """A wheel for one platform and every Python: nothing in it knows Python's ABI."""
    names = names_in(dists.wheel)
    programs = {Path(name).name for name in names if ".data/scripts/" in name}
    assert programs == {"sccache-py", "libsccache-observe.so"}
    assert [n for n in names if n.endswith((".c", ".h", ".o"))] == []
    # And no `tests`, `server` or `client` at the top of anyone's site-packages.
    assert {Path(n).parts[0].split("-")[0] for n in names} == {"sccache_py"}
    assert "sccache_py/py.typed" in names
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", dists.wheel.name)


def test_the_source_distribution_can_be_built_and_tested(dists):
    """It has what the wheel leaves out, as files: a link would not survive every archive."""
    with tarfile.open(dists.sdist) as archive:
        members = {m.name.split("/", 1)[-1]: m for m in archive.getmembers()}
    assert sources(".py") | sources(".c") | sources(".h") <= set(members)
    others = {"packaging/native_build.py", "tests/test_packaging.py", "demo/Cargo.lock", "LICENSE"}
    assert others <= set(members)
    assert [name for name, member in members.items() if member.issym()] == []


def test_an_installed_wheel_runs(dists, tmp_path):
    """The three programs stand side by side: the client finds the others beside itself."""
    bin = environment(tmp_path / "venv")
    install(dists.wheel, bin)
    assert (bin / "sccache-py").read_bytes()[:4] == b"\x7fELF"
    assert os.access(bin / "sccache-py-server", os.X_OK)
    assert os.access(bin / "sccache-py-ctl", os.X_OK)
    assert (bin / "libsccache-observe.so").exists()
    version = run(bin / "python", "-c", "import sccache_py; print(sccache_py.__version__)", cwd=tmp_path)
    assert version.strip() in run(bin / "sccache-py", "--version", cwd=tmp_path)


def test_without_a_c_compiler_the_client_is_a_python_program(dists, tmp_path):
    """An installation must not fail for want of a compiler, and the user can see which client it has."""
    bare = {**os.environ, "CC": "/nonexistent/cc", "PATH": str(tmp_path / "nothing")}
    wheels = tmp_path / "wheels"
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        wheels,
        dists.sdist,
        cwd=tmp_path,
        env=bare,
    )
    (wheel,) = wheels.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    bin = environment(tmp_path / "venv")
    install(wheel, bin)
    assert (bin / "sccache-py").read_bytes()[:2] == b"#!"
    assert not (bin / "libsccache-observe.so").exists()
    assert "Python client" in run(bin / "sccache-py", "--version", cwd=tmp_path)
