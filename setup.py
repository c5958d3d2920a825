"""What pyproject.toml cannot say: this wheel carries a C program and a preload library in bin/.

Where there is no C compiler the installation still succeeds; `sccache-py` is then a Python program that
speaks the same protocol, only slower.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

# Only after setuptools: it brings its own distutils, which Python 3.12 no longer has.
from distutils.command.build_scripts import build_scripts  # isort: skip

ROOT = Path(__file__).resolve().parent

_spec = importlib.util.spec_from_file_location("native_build", ROOT / "packaging" / "native_build.py")
assert _spec is not None
assert _spec.loader is not None
native_build = importlib.util.module_from_spec(_spec)
sys.modules["native_build"] = native_build  # dataclasses look their module up there
_spec.loader.exec_module(native_build)

# `#!python` is replaced by pip with the environment's interpreter.
PYTHON_CLIENT = """\
#!python
from sccache_py.client.fallback import main

raise SystemExit(main())
"""


class ProgramDistribution(Distribution):
    """A wheel for one platform, laid out at the wheel's root; for any if nothing could be compiled."""

    has_native = True

    def has_ext_modules(self) -> bool:
        return True


class BuildPrograms(build_scripts):
    """Compile where distutils would have copied scripts."""

    def run(self) -> None:
        directory = Path(self.build_dir)
        directory.mkdir(parents=True, exist_ok=True)
        # install_scripts takes whatever lies here: nothing of an earlier build may.
        for name in (native_build.CLIENT, native_build.OBSERVER):
            (directory / name).unlink(missing_ok=True)
        try:
            native_build.build(ROOT, directory)
        except native_build.NativeBuildError as e:
            self.warn(f"no native client, the slower one in Python is installed instead:\n{e}")
            (directory / native_build.CLIENT).write_text(PYTHON_CLIENT)
            self.distribution.has_native = False


class AnyPythonWheel(bdist_wheel):
    """The programs contain no Python ABI."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        return "py3", "none", platform if self.distribution.has_native else "any"


setup(
    scripts=[str(path.relative_to(ROOT)) for files in native_build.sources(ROOT) for path in files],
    distclass=ProgramDistribution,
    cmdclass={"build_scripts": BuildPrograms, "bdist_wheel": AnyPythonWheel},
)
