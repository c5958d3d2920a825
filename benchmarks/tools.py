"""What a run needs, made once below benchmarks/work/: our own installation, the peers, and the sources to build."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.contenders import PEERS, Contender, Ours, clean_environment

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "benchmarks" / "work"
ROOMS = WORK / "rooms"
PROJECTS = ROOT / "benchmarks" / "projects"

Say = Callable[[str], None]


class Missing(Exception):
    """What could not be had, and why; it is reported and left out."""


def run(argv: Sequence[str | Path], timeout_s: float = 600, **options: object) -> str:
    """Output of a program that prepares something; Missing with its last words if it fails."""
    try:
        done = subprocess.run(
            [str(a) for a in argv], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False, **options
        )  # type: ignore[call-overload]
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Missing(f"{Path(argv[0]).name}: {e}") from e
    if done.returncode != 0:
        raise Missing(f"{Path(argv[0]).name} {argv[1]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return str(done.stdout)


def online() -> dict[str, str]:
    return clean_environment() | {"CARGO_NET_OFFLINE": "false"}


def _environment(name: str) -> Path:
    """A virtual environment below work/."""
    place = WORK / name
    if not (place / "bin" / "pip").exists():
        run([sys.executable, "-m", "venv", place])
    return place


def ours(bin_directory: str | None) -> Ours:
    """Installed anew from the tree as it is now, so that an edit during the run changes nothing."""
    if bin_directory is not None:
        program = Path(bin_directory).absolute() / "sccache-py"
        if not program.exists():
            raise Missing(f"no sccache-py in {bin_directory}")
        return Ours(str(program))
    place = _environment("ours")
    run([place / "bin" / "pip", "install", "--quiet", "--force-reinstall", "--no-deps", ROOT])
    run([place / "bin" / "pip", "install", "--quiet", ROOT])
    return Ours(str(place / "bin" / "sccache-py"))


def peer(name: str) -> Contender:
    if name in ("sccache", "zccache"):
        place = _environment("peers")
        program = place / "bin" / name
        if not program.exists():
            run([place / "bin" / "pip", "install", "--quiet", name])
        return PEERS[name](str(program))
    if name == "kache":
        program = WORK / "kache" / "bin" / "kache"
        if not program.exists():
            # Not --locked: its lock file may name versions that a registry mirror does not have yet.
            run(["cargo", "install", "kache", "--quiet", "--root", WORK / "kache"], timeout_s=7200, env=online())
        return PEERS[name](str(program))
    found = shutil.which(name)
    if name not in PEERS or found is None:
        raise Missing("not installed" if name in PEERS else "not a peer that we know")
    return PEERS[name](found)


def project(name: str) -> Path:
    """A copy of a cargo project, its dependencies fetched; the same path for everybody."""
    source = ROOT / "demo" if name == "demo" else PROJECTS / name
    place = WORK / "checkouts" / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("target"))
    run(["cargo", "fetch", "--locked"], cwd=place, env=online(), timeout_s=1800)
    return place


def second_checkout(place: Path, suffix: str) -> Path:
    other = place.with_name(place.name + suffix)
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(place, other)
    return other


def rustc() -> str:
    """The compiler itself: a rustup proxy would add its own time to everybody's."""
    return os.path.join(run(["rustc", "--print=sysroot"], env=clean_environment()).strip(), "bin", "rustc")


def crate_sources() -> dict[str, Path]:
    """Name → unpacked source of each crate of projects/csources."""
    place = project("csources")
    told = json.loads(run(["cargo", "metadata", "--format-version=1", "--locked"], cwd=place, env=online()))
    return {package["name"]: Path(package["manifest_path"]).parent for package in told["packages"]}


def debian_source(name: str) -> Path:
    """Unpacked source of a Debian package; Missing where apt does not offer it."""
    place = WORK / "debian" / name
    if (place / "source").exists():
        return place / "source"
    if shutil.which("apt-get") is None or shutil.which("dpkg-source") is None:
        raise Missing("apt-get or dpkg-source is not installed")
    place.mkdir(parents=True, exist_ok=True)
    options = _source_list(WORK / "debian")
    if not (WORK / "debian" / "lists" / "partial").exists():
        (WORK / "debian" / "lists" / "partial").mkdir(parents=True)
        run(["apt-get", *options, "update"], timeout_s=900)
    fetch = ["apt-get", *options, "source", "--download-only"]
    try:
        run([*fetch, name], cwd=place, timeout_s=900)
    except Missing:
        # A mirror may not have the newest update that the list of the security archive names.
        run([*fetch, f"{name}/{platform.freedesktop_os_release()['VERSION_CODENAME']}"], cwd=place, timeout_s=900)
    description = next(place.glob("*.dsc"), None)
    if description is None:
        raise Missing("apt-get brought no .dsc")
    run(["dpkg-source", "--no-check", "-x", description.name, "source"], cwd=place)
    return place / "source"


def _source_list(place: Path) -> list[str]:
    """The system's own package sources, asked for source packages; the system's lists stay as they are."""
    place.mkdir(parents=True, exist_ok=True)
    parts = place / "sources.d"
    parts.mkdir(exist_ok=True)
    for file in [*Path("/etc/apt/sources.list.d").glob("*.sources")]:
        (parts / file.name).write_text(file.read_text().replace("Types: deb\n", "Types: deb-src\n"))
    old = Path("/etc/apt/sources.list")
    lines = old.read_text().splitlines() if old.exists() else []
    (place / "sources.list").write_text("".join(f"deb-src {line[4:]}\n" for line in lines if line.startswith("deb ")))
    return [
        f"-oDir::Etc::sourcelist={place / 'sources.list'}",
        f"-oDir::Etc::sourceparts={parts}",
        f"-oDir::State::lists={place / 'lists'}",
        "-oAPT::Sandbox::User=root",
    ]
