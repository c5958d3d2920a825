"""What does SCCACHE_INCREMENTAL cost, and bring, in an edit-compile loop of a workspace's own crate?

usage: incremental_edits.py [--crate regex-automata] [--edits 8] [--client sccache-py]

A crate of the registry's is copied and edited as one's own: after each edit `cargo build` runs in four copies, one after the other in turn:

- `plain`: cargo alone,
- `plain again`: the control,
- `passed`: through the cache as it is by default, which leaves incremental crates to the compiler,
- `stored`: with SCCACHE_INCREMENTAL=1, in which each edit is looked up in vain, and stored.

Then the edits are undone one after the other, as by going back through branches: what `stored` has seen before it need not compile.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What only tests need is not looked for.
_FOR_TESTS = re.compile(r"^\[dev-dependencies.*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)

WAYS = ("plain", "plain again", "passed", "stored")


def sources(crate: str) -> Path:
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    found = sorted(p for p in home.glob(f"registry/src/*/{crate}-*") if p.name.removeprefix(f"{crate}-")[:1].isdigit())
    if not found:
        raise SystemExit(f"{crate} is not in cargo's registry: build something that needs it first")
    return found[-1]


class Copy:
    """One way to build, with a copy of the crate and a target directory of its own."""

    def __init__(self, way: str, root: Path, crate: Path, client: str) -> None:
        self.place = root / way.replace(" ", "-")
        shutil.copytree(crate, self.place)
        manifest = self.place / "Cargo.toml"
        manifest.write_text(_FOR_TESTS.sub("", manifest.read_text()) + "\n[workspace]\n")
        self.lib = self.place / "src" / "lib.rs"
        self.text = self.lib.read_text()
        keep = ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME")
        self.env = {name: os.environ[name] for name in keep if name in os.environ} | {"CARGO_INCREMENTAL": "1"}
        self.env |= {"SCCACHE_DIR": str(root / "cache"), "SCCACHE_SERVER_UDS": str(root / "s")}
        if not way.startswith("plain"):
            self.env["RUSTC_WRAPPER"] = client
        if way == "stored":
            self.env["SCCACHE_INCREMENTAL"] = "1"

    def build(self, edit: int) -> float:
        """Seconds for `cargo build` with that many functions added."""
        added = "".join(f"\n#[doc(hidden)]\npub fn edit_{n}() -> usize {{ {n} }}\n" for n in range(edit))
        self.lib.write_text(self.text + added)
        began = time.perf_counter()
        subprocess.run(["cargo", "build", "--quiet"], cwd=self.place, env=self.env, check=True)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crate", default="regex-automata")
    parser.add_argument("--edits", type=int, default=8)
    parser.add_argument("--client", default=shutil.which("sccache-py", path=os.path.dirname(sys.executable)) or "sccache-py")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="incremental-"))
    copies: dict[str, Copy] = {}
    try:
        copies = {way: Copy(way, root, sources(arguments.crate), arguments.client) for way in WAYS}
        for copy in copies.values():
            copy.build(0)
        times: dict[str, dict[str, list[float]]] = {}
        edits = range(1, arguments.edits + 1)
        for what, numbers in (("new edits", edits), ("edits undone", reversed(range(arguments.edits)))):
            times[what] = {way: [] for way in WAYS}
            for number in numbers:
                turn = number % len(WAYS)
                for way in WAYS[turn:] + WAYS[:turn]:
                    times[what][way].append(copies[way].build(number))
        print(f"{sources(arguments.crate).name}, {arguments.edits} edits, medians and ratios to plain, pair by pair")
        for what, by_way in times.items():
            for way, seconds in by_way.items():
                ratio = statistics.median(a / b for a, b in zip(seconds, by_way["plain"], strict=True))
                print(f"{what:14} {way:12} {statistics.median(seconds):6.2f} s  ×{ratio:.2f}", flush=True)
    finally:
        if copies:
            subprocess.run([arguments.client, "--stop-server"], env=copies["stored"].env, stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
