"""The folder that PyInstaller makes: a cargo build through it, where no Python is to be found.

The one test that needs a package index: build_bundle.sh installs PyInstaller into an environment of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.slow


def output(*command: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
    """Its stdout; everything it said if it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def bundle(tmp_path) -> Path:
    made = output(
        ROOT / "packaging" / "build_bundle.sh",
        tmp_path / "dist",
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
    )
    return Path(made.splitlines()[-1])


@pytest.fixture
def path_without_python(tmp_path) -> str:
    """A PATH with cargo, rustc and what links programs, and nothing else."""
    tools = tmp_path / "tools"
    tools.mkdir()
    # Past rustup's proxies, which need a HOME: straight to the toolchain's own programs.
    sysroot = output("rustc", "--print", "sysroot", cwd=tmp_path, env=os.environ).strip()
    for name in ("cargo", "rustc", "cc", "ld", "as"):
        found = shutil.which(name, path=f"{sysroot}/bin") or shutil.which(name)
        assert found is not None, name
        (tools / name).symlink_to(found)
    assert shutil.which("python3", path=tools) is None
    return str(tools)


def crate(where: Path) -> Path:
    """A library and a program that uses it."""
    (where / "src").mkdir(parents=True)
    manifest = '[package]\nname = "bundled"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
    (where / "Cargo.toml").write_text(manifest)
    (where / "src" / "lib.rs").write_text("pub fn answer() -> u32 { 42 }\n")
    (where / "src" / "main.rs").write_text('fn main() { println!("{}", bundled::answer()); }\n')
    return where


def test_a_machine_without_python_gets_hits_from_the_bundle(bundle, path_without_python, tmp_path):
    """The bundle is for such machines.  Its programs run, find each other, and share one cache."""
    home = tmp_path / "home"
    home.mkdir()
    env = {
        "PATH": path_without_python,
        "HOME": str(home),
        "SCCACHE_DIR": str(tmp_path / "cache"),
        "RUSTC_WRAPPER": str(bundle / "sccache-py"),
    }
    project = crate(tmp_path / "project")

    def build() -> bytes:
        output("cargo", "build", "--release", "--offline", cwd=project, env=env)
        assert output(project / "target/release/bundled", cwd=project, env=env) == "42\n"
        program = (project / "target/release/bundled").read_bytes()
        shutil.rmtree(project / "target")
        return program

    def hits_and_misses() -> tuple[int, int]:
        answer = output(bundle / "sccache-py", "--show-stats", "--stats-format", "json", cwd=project, env=env)
        stats = json.loads(answer)["stats"]
        return tuple(stats[kind]["counts"].get("Rust", 0) for kind in ("cache_hits", "cache_misses"))

    try:
        cold = build()
        _, misses_cold = hits_and_misses()
        assert misses_cold > 0
        warm = build()
        hits, misses = hits_and_misses()
        assert hits > 0
        assert misses == misses_cold
        assert warm == cold
    finally:
        output(bundle / "sccache-py", "--stop-server", cwd=project, env=env)
