"""A whole build through our client: make and ninja, a launcher before the compiler and links of its name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def observed_only(c) -> None:
    if not c.observed:
        pytest.skip("written for compiles that are observed")


MAKEFILE = """\
FLAGS = -std=gnu11 -g -O1 -fPIC -Wall -Wextra -MMD -MP -DSCCACHE_VERSION='"a version"' -pipe
OBJECTS = $(patsubst %.c,o/%.o,$(notdir $(wildcard ../src/*.c)))
all: prog
o/%.o: ../src/%.c
	@mkdir -p o
	$(CC) $(FLAGS) -c $< -o $@
libbuild.a: $(OBJECTS)
	$(AR) rcsD $@ $^
prog: libbuild.a
	$(CC) -shared -o $@ -Wl,--whole-archive libbuild.a -Wl,--no-whole-archive -ldl
"""


def write_ninja(place: Path, compiler: str, sources: list[Path]) -> None:
    flags = "-std=gnu11 -g -O1 -fPIC -Wall -Wextra -DSCCACHE_VERSION='\"a version\"' -MD -MT $out -MF $out.d"
    text = f"rule cc\n  command = {compiler} {flags} -c $in -o $out\n  depfile = $out.d\n  deps = gcc\n"
    text += "rule ar\n  command = rm -f $out && ar rcsD $out $in\n"
    text += f"rule link\n  command = {compiler} -shared -o $out -Wl,--whole-archive $in -Wl,--no-whole-archive -ldl\n"
    text += "".join(f"build o/{s.stem}.o: cc ../src/{s.name}\n" for s in sources)
    text += f"build libbuild.a: ar {' '.join(f'o/{s.stem}.o' for s in sources)}\nbuild prog: link libbuild.a\n"
    (place / "build.ninja").write_text(text)


@pytest.mark.parametrize("entry", ["prefix", "links"])
@pytest.mark.parametrize("tool", ["make", "ninja"])
def test_a_project_comes_out_of_the_cache_as_it_is_built_plain(c, tool, entry):
    """Our own client, some twenty files: objects, depfiles, the archive and what is linked of it, and what the build says."""
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}")
    sources = sorted((Path(__file__).parents[2] / "client" / "native").glob("*.[ch]"))
    for source in sources:
        c.write(f"src/{source.name}", source.read_bytes())
    links = c.p / "links"
    links.mkdir()
    # The same words in every build: what stands behind them differs.
    launcher = links / "launch"
    compiler = c.name if entry == "links" else f"{launcher} {c.name}"
    made = [s for s in sources if s.suffix == ".c"]

    def build(cached: bool) -> tuple[list[bytes], dict[str, bytes]]:
        place = c.p / "build"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for link in links.iterdir():
            link.unlink()
        if cached:
            (links / c.name).symlink_to(c.world.client)
            launcher.write_text(f'#!/bin/sh\nexec {c.world.client} "$@"\n')
        else:
            launcher.write_text('#!/bin/sh\nexec "$@"\n')
        launcher.chmod(0o755)
        env = {**c.world.server_env, "PATH": f"{links}:{c.world.env['PATH']}" if entry == "links" else c.world.env["PATH"]}
        if tool == "make":
            (place / "Makefile").write_text(MAKEFILE)
            ran = c.world.run(["make", "-j2", f"CC={compiler}"], place, env)
        else:
            write_ninja(place, compiler, made)
            ran = c.world.run(["ninja", "-j2", "-v"], place, env)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        said = sorted(line.partition(b"] ")[2] or line for line in (ran.stdout + ran.stderr).splitlines())
        made_files = [p for p in place.rglob("*") if p.is_file() and not p.name.startswith(".ninja")]
        return said, {str(p.relative_to(place)): p.read_bytes() for p in made_files}

    plain = build(cached=False)
    assert len(plain[1]) >= len(made)
    for hits in (0, len(made)):
        said, files = build(cached=True)
        assert said == plain[0]
        assert sorted(files) == sorted(plain[1])
        assert [name for name in files if files[name] != plain[1][name]] == []
        counts = c.world.counts()
        assert counts["cache_hits"] == hits, c.world.reasons()
    assert counts["compilations"] == len(made)
    assert c.world.reasons() == {}
