"""Random crates and random edits, each compiled once through the cache and once without; everything they leave is compared.

The world is small on purpose: each thing has two or three states, so that states come back and hit.  The seed is printed;
`SCCACHE_TEST_SEED=n` replays a run, `SCCACHE_TEST_STEPS=n` makes it longer.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STEPS = int(os.environ.get("SCCACHE_TEST_STEPS", "45"))
SEED = int(os.environ.get("SCCACHE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

JSON = ("--error-format=json", "--json=diagnostic-rendered-ansi,artifacts,future-incompat")

ROOTS = (
    'mod a;\npub use a::f;\npub const T: &str = include_str!("t.txt");\npub const V: Option<&str> = option_env!("RANDOM_V");\n',
    'mod a;\npub fn g() { let unused = 1; a::f(); }\npub const T: &[u8] = include_bytes!("../src/t.txt");\n',
)
MACROS = (
    'pub const M: &str = m::content!("conf/m.txt");\n',
    'pub const M: &str = m::canonical_content!("conf/m.txt");\n',
    'pub const N: &str = m::names!("conf");\npub const K: &str = m::kind!("conf/extra");\n',
    'pub const S: &str = m::size!("conf/m.txt");\npub const V: &str = m::variable!("RANDOM_V");\n',
)
FLAGS = ((), ("-g",), ("-Copt-level=2",), ("--cfg", "x"), ("-Cmetadata=abc", "-Cextra-filename=-abc"), ("-Cpanic=abort",))


class Checkout:
    """One copy of the sources, and what may happen to it."""

    def __init__(self, where: Path, choose: random.Random, macros: bool) -> None:
        self.where = where
        self.choose = choose
        self.macros = macros
        for name in ("src", "conf1", "conf2"):
            (where / name).mkdir(parents=True)
        self.put("src/lib.rs", ROOTS[0] + (MACROS[0] if macros else ""))
        self.put("src/a.rs", "pub fn f() -> u32 { 0 }\n")
        self.put("src/t.txt", "0\n")
        for number in (1, 2):
            self.put(f"conf{number}/m.txt", f"{number}\n")
        (where / "conf").symlink_to("conf1")

    def put(self, name: str, text: str) -> str:
        """Write, by one of the ways in which files are written; sometimes with an mtime from before."""
        path = self.where / name
        mtime = path.stat().st_mtime_ns if path.exists() else None
        way = self.choose.choice(("in place", "rename", "anew"))
        if way == "in place":
            path.write_text(text)
        elif way == "rename":
            (self.where / "new").write_text(text)
            (self.where / "new").rename(path)
        else:
            path.unlink(missing_ok=True)
            path.write_text(text)
        if mtime is not None and self.choose.random() < 0.5:
            os.utime(path, ns=(mtime, mtime))
            way += ", mtime kept"
        return f"{name} = {text!r} ({way})"

    def change(self) -> str:
        """Do one thing; says what."""
        choose = self.choose
        things = [self.edit_root, self.edit_module, self.edit_text, self.move_module, self.touch]
        if self.macros:
            things += [self.edit_conf, self.retarget_conf, self.add_or_remove, self.edit_root]
        return choose.choice(things)()

    def edit_root(self) -> str:
        return self.put("src/lib.rs", self.choose.choice(ROOTS) + (self.choose.choice(MACROS) if self.macros else ""))

    def edit_module(self) -> str:
        name = "src/a.rs" if (self.where / "src/a.rs").exists() else "src/a/mod.rs"
        return self.put(name, f"pub fn f() -> u32 {{ {self.choose.randrange(3)} }}\n")

    def edit_text(self) -> str:
        return self.put("src/t.txt", f"{self.choose.randrange(3)}\n")

    def edit_conf(self) -> str:
        return self.put(f"conf{self.choose.choice('12')}/m.txt", self.choose.choice(("1\n", "2\n", "longer\n")))

    def move_module(self) -> str:
        flat, deep = self.where / "src/a.rs", self.where / "src/a/mod.rs"
        if flat.exists():
            deep.parent.mkdir(exist_ok=True)
            flat.rename(deep)
            return "a.rs to a/mod.rs"
        deep.rename(flat)
        if self.choose.random() < 0.5:
            deep.parent.rmdir()
        return "a/mod.rs to a.rs"

    def retarget_conf(self) -> str:
        target = self.choose.choice(("conf1", "conf2"))
        (self.where / "new").symlink_to(target)
        (self.where / "new").rename(self.where / "conf")
        return f"conf -> {target}"

    def add_or_remove(self) -> str:
        path = self.where / f"conf{self.choose.choice('12')}" / "extra"
        if path.is_dir():
            path.rmdir()
            return f"{path.parent.name}/extra gone"
        if path.exists():
            path.unlink()
            path.mkdir()
            return f"{path.parent.name}/extra is a directory"
        path.write_text("x")
        return f"{path.parent.name}/extra is a file"

    def touch(self) -> str:
        path = self.choose.choice([p for p in self.where.rglob("*") if p.is_file()])
        when = self.choose.choice((None, (1, 1)))
        os.utime(path, when)
        return f"touched {path.name}"


def test_whatever_happens_the_cache_and_the_compiler_agree(world, macros):
    """A wrong hit hands someone another program's object file: this looks for those that nobody has thought of."""
    print(f"SCCACHE_TEST_SEED={SEED}")
    choose = random.Random(SEED)
    checkouts = [Checkout(world.root / name, choose, world.observed) for name in ("one", "two")]
    outs = [str(world.o), str(world.root / "other out"), "out"]
    world.outs += [world.root / "other out", *(c.where / "out" for c in checkouts)]
    checkout, out, flags, mapped, json, value, umask = checkouts[0], outs[0], FLAGS[0], False, False, None, 0o022
    did = []
    verdicts = []
    for step in range(STEPS):
        for _ in range(choose.choice((0, 1, 1, 2))):
            what = choose.randrange(9)
            if what == 0:
                checkout = choose.choice(checkouts)
            elif what == 1:
                out = choose.choice(outs)
            elif what == 2:
                flags, mapped = choose.choice(FLAGS), choose.random() < 0.6
            elif what == 3:
                json, umask = choose.random() < 0.5, choose.choice((0o022, 0o077))
            elif what == 4:
                value = choose.choice((None, "", "1"))
            else:
                did.append(f"{checkout.where.name}: {checkout.change()}")
        args = ["--crate-name", "x", "--crate-type", "lib", "--edition=2021", "--emit=dep-info,metadata,link", "--out-dir", out, *flags]
        args += ["--extern", f"m={macros}/libm.so"]
        args += ["--remap-path-prefix", f"{checkout.where}=/src"] if mapped else []
        args += [*(JSON if json else ()), "src/lib.rs"]
        env = {} if value is None else {"RANDOM_V": value}
        before = world.counts() if world.pids else {}
        how = {"cwd": checkout.where, "env": env, "umask": umask}
        cached = world.cached(*args, **how)
        verdicts.append(world.verdict_since(before))
        did.append(f"{step}: {verdicts[-1]}: {checkout.where.name} {env} {umask:o} {' '.join(args)}")
        uncached = world.uncached(*args, **how)
        if cached != uncached:
            kept = world.root.parent / f"differs-{SEED}"
            shutil.copytree(checkout.where, kept, symlinks=True, dirs_exist_ok=True)
        assert cached == uncached, f"SCCACHE_TEST_SEED={SEED}, sources in {kept}:\n" + "\n".join(did)
    print({v: verdicts.count(v) for v in set(verdicts)})
    assert verdicts.count("hit") > STEPS // 10, "too few hits to find a wrong one"
    assert verdicts.count("miss") > STEPS // 10
