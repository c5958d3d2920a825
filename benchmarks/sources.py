"""The single compiles that hits are measured with: what to call, and what must come of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

# Caches distrust files that are as young as the clock's tick, ccache those of this second.
_AGE_S = 2.2


@dataclass(frozen=True, slots=True)
class Compile:
    """argv without the output, which is appended as the compiler of this language wants it.

    outputs: what comes of it, below `out`; empty for a question.
    """

    case: str
    language: str
    argv: tuple[str, ...]
    cwd: Path
    outputs: tuple[str, ...]

    @property
    def out(self) -> Path:
        return self.cwd / "out"

    def command(self, number: int = 0) -> tuple[list[str], list[Path]]:
        """The n-th of many equal compiles, each with outputs of its own."""
        if not self.outputs:
            return list(self.argv), []
        directory = self.out / str(number)
        directory.mkdir(parents=True, exist_ok=True)
        outputs = [directory / name for name in self.outputs]
        return [*self.argv, *self.output_words(directory)], outputs

    def output_words(self, directory: Path) -> list[str]:
        """The last of them may be replaced by that of another directory."""
        return ["--out-dir", str(directory)] if self.language == "rust" else ["-o", str(directory / self.outputs[0])]


def write_all(place: Path, rustc: str) -> list[Compile]:
    """All the single compiles of the `hit` workload."""
    place.mkdir(parents=True, exist_ok=True)
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
        Compile("C, 5 system headers", "c", ("gcc", "-O2", "-c", "five.c"), place, ("five.o",)),
        Compile("C++, 300 headers", "c++", ("g++", "-O2", "-c", "many.cc"), place, ("many.o",)),
        Compile("Rust lib", "rust", rust("one", "lib"), place, ("libone-b0a1.rlib", "libone-b0a1.rmeta", "one-b0a1.d")),
        Compile("Rust binary", "rust", rust("hello", "bin"), place, ("hello-b0a1", "hello-b0a1.d")),
        Compile("Rust probe", "rust", probe, place, ()),
    ]


def _write(path: Path, text: str) -> None:
    """Left alone if it is so already: it then is old enough for everybody."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
