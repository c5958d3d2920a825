"""Words to compile a crate that uses a macro of macros/; a plain module, for more than one test file."""

from __future__ import annotations

from pathlib import Path

LIB = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", "--edition=2021")

NO_MACRO_READS = "dep-info names nothing that a macro opens"


def using(world, macros, expression: str, *more: str) -> tuple[str, ...]:
    """A crate whose constant is what a macro says; the words to compile it."""
    world.write("src/lib.rs", f"pub const S: &str = {expression};\n")
    crate = expression.partition("::")[0]
    return (*LIB, *world.out, "--extern", f"{crate}={macros}/lib{crate}.so", *more, "src/lib.rs")


def point(link: Path, target: str) -> None:
    """Retarget a link."""
    link.unlink()
    link.symlink_to(target)
