"""Workload `growth`: what a hit costs as the cache fills: by entries, and by variants of one manifest.

Entries are put into our store directly, by our own store's code in our own installation; a peer's cache would have to
be filled by that many compiles, so here we measure only ourselves.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from benchmarks import figures, machine
from benchmarks.contenders import Contender
from benchmarks.measure import Bench, Failed, once
from benchmarks.sources import Compile, write_all

GROWTH = "growth"

_SIZES = (1_000, 10_000, 100_000)
_VARIANTS = (1, 2, 4, 8, 16, 32)
_HITS = 40

# Run by our server's own Python: N entries as a Rust lib leaves them.
_FILL = """
import os, sys
from sccache_py.server.store.disk import DiskStore
store = DiskStore(sys.argv[1], 40 << 30)
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    name = n.to_bytes(16, "little")
    store.put(b"m" + name, os.urandom(600))
    store.put(b"r" + name, os.urandom(3000))
store.close()
"""


def growth(bench: Bench) -> None:
    ours = next((c for c in bench.contenders if c.name == "sccache-py"), None)
    if ours is None or ours.program is None:
        return
    compile_ = next(c for c in write_all(bench.work / "sources", bench.rustc) if c.case == "Rust lib")
    try:
        _by_entries(bench, ours, compile_)
        _by_variants(bench, ours)
    except Failed as e:
        bench.results.remark(f"growth: {e}")


def _by_entries(bench: Bench, ours: Contender, compile_: Compile) -> None:
    python = Path(str(ours.program)).with_name("python")
    compiler, outputs = compile_.command()
    with ours.at_work(bench.rooms):
        assert ours.room is not None
        argv, env = ours.command(compiler), ours.environment()
        once(argv, env, compile_.cwd, outputs)
        filled = 0
        for size in _SIZES:
            bench.tick(f"growth: {size:,} entries")
            ours.ask("--stop-server")
            fill = [python, "-c", _FILL, ours.room.cache, str(filled), str(size)]
            done = subprocess.run(fill, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Failed(f"the store could not be filled: {done.stderr.strip()[-300:]}")
            filled = size
            # A new server each time: the first hit comes from the database, the others from memory.
            ours.ask("--start-server")
            machine.wait_for_rest(ours.servers())
            first = once(argv, env, compile_.cwd, outputs).seconds * 1e3
            values = [once(argv, env, compile_.cwd, outputs).seconds * 1e3 for _ in range(_HITS)]
            bench.results.add(GROWTH, f"hit with {size:,} entries in the cache", ours.name, "ms", values)
            bench.results.add(GROWTH, f"first hit of a new server, {size:,} entries", ours.name, "ms", [first], "identifies the compiler")


def _by_variants(bench: Bench, ours: Contender) -> None:
    """A crate whose included file has 1 to 32 contents, asked for in random order."""
    place = bench.work / "variants"
    place.mkdir(parents=True, exist_ok=True)
    (place / "many.rs").write_text('pub static TEXT: &str = include_str!("text.txt");\n')
    output = place / "libmany.rlib"
    argv = [bench.rustc, "--crate-name", "many", "--crate-type", "lib", "--edition=2021", "many.rs", "--emit=dep-info,metadata,link"]
    dice = random.Random(1)
    points = []
    with ours.at_work(bench.rooms):
        env, command = ours.environment(), ours.command([*argv, "--out-dir", str(place)])

        def use(n: int) -> float:
            (place / "text.txt").write_text(f"variant {n}\n")
            return once(command, env, place, [output]).seconds * 1e3

        made = 0
        for count in _VARIANTS:
            bench.tick(f"growth: {count} variants")
            while made < count:
                use(made)
                made += 1
            machine.wait_for_rest(ours.servers())
            values = [use(dice.randrange(count)) for _ in range(_HITS)]
            bench.results.add(GROWTH, f"hit with {count} variants, random order", ours.name, "ms", values)
            points.append((float(count), figures.median(values)))
    slope, _ = figures.least_squares(points)
    each = f"each further variant of a manifest costs a hit {slope * 1000:.0f} µs"
    bench.results.remark(f"growth: {each} (random order, so half of them are tried)")
