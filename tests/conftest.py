"""What tests of every kind share: the native programs, compiled once per session, by setup.py's means."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# A slow moment of a shared machine is no bug.
settings.register_profile("sccache-py", parent=settings(), deadline=None)
settings.load_profile("sccache-py")


class Native(NamedTuple):
    """Paths of the two native programs."""

    client: Path
    observe: Path


def load_native_build() -> ModuleType:
    """packaging/native_build.py, by its path: that folder is no package, pytest imports one of its name."""
    spec = importlib.util.spec_from_file_location("native_build", ROOT / "packaging" / "native_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """The client and the preload library.  They lie alone: no server, no command line beside them."""
    built = load_native_build().build(ROOT, tmp_path_factory.mktemp("native"))
    assert built.observe is not None, "the preload library does not compile: see stderr"
    return Native(built.client, built.observe)
