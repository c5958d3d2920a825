"""The single compiles that hits are measured with: what to call, and what must come of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

# Caches distrust files that are as young as the clock's tick, ccache those of this second.
_AGE_S = 2.2


@dataclass(frozen=True, slots=True)
class Compile:
    """argv without the output; `output` is appended as the compiler of this language wants it."""

    case: str
    language: str
    argv: tuple[str, ...]
    cwd: Path
    output: Path | None

    def command(self, number: int = 0) -> tuple[list[str], Path | None]:
        """The n-th of many equal compiles, each with an output of its own."""
        if self.output is None:
            return list(self.argv), None
        if self.language == "rust":
            directory = self.output.parent / str(number)
            directory.mkdir(exist_ok=True)
            return [*self.argv, "--out-dir", str(directory)], directory / self.output.name
        output = self.output.parent / f"{number}-{self.output.name}"
        return [*self.argv, "-o", str(output)], output


def write_all(place: Path, rustc: str) -> list[Compile]:
    """All the single compiles of the `hit` workload."""
    place.mkdir(parents=True, exist_ok=True)
    out = place / "out"
    out.mkdir(exist_ok=True)
    five = "".join(f"#include <{name}.h>\n" for name in ("errno", "stdio", "stdlib", "string", "unistd"))
    _write(place / "five.c", five + 'int main(void) { return printf("%s\\n", strerror(errno)) < 0; }\n')
    many = "".join(f"#include <{name}>\n" for name in ("iostream", "map", "regex"))
    _write(
        place / "many.cc",
        many
        + "int main(int, char **argv) {\n"
        + "    std::map<std::string, int> seen;\n"
        + '    std::cout << seen[argv[0]] << std::regex_match(argv[0], std::regex("a+b*")) << "\\n";\n}\n',
    )
    _write(place / "one.rs", "pub fn add(a: u32, b: u32) -> u32 { a + b }\n")
    _write(place / "hello.rs", 'fn main() { println!("hello"); }\n')
    time.sleep(_AGE_S)

    def rust(name: str, kind: str) -> tuple[str, ...]:
        """As cargo calls it."""
        return (
            rustc, "--crate-name", name, "--edition=2021", f"{name}.rs", "--error-format=json",
            "--json=diagnostic-rendered-ansi,artifacts,future-incompat", "--crate-type", kind, "--emit=dep-info,metadata,link"
            if kind == "lib" else "--emit=dep-info,link",
            "-C", "embed-bitcode=no", "-C", "debuginfo=2", "-C", "metadata=b0a1", "-C", "extra-filename=-b0a1",
        )  # fmt: skip

    probe = (
        rustc, "-", "--crate-name", "___", "--print=file-names", "--crate-type", "bin", "--crate-type", "rlib",
        "--crate-type", "proc-macro", "--print=sysroot", "--print=split-debuginfo", "--print=crate-name", "--print=cfg", "-Wwarnings",
    )  # fmt: skip
    return [
        Compile("C, 5 system headers", "c", ("gcc", "-O2", "-c", "five.c"), place, out / "five.o"),
        Compile("C++, 300 headers", "c++", ("g++", "-O2", "-c", "many.cc"), place, out / "many.o"),
        Compile("Rust lib", "rust", rust("one", "lib"), place, out / "libone-b0a1.rlib"),
        Compile("Rust binary", "rust", rust("hello", "bin"), place, out / "hello-b0a1"),
        Compile("Rust probe", "rust", probe, place, None),
    ]


def _write(path: Path, text: str) -> None:
    """Left alone if it is so already: it then is old enough for everybody."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
