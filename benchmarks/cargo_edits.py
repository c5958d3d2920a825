"""What a developer does to the projects of cargo_projects.py between two builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.cargo_projects import PROJECTS, manifest

_GRAMMARS, _NATIVE, _STARTERS = (PROJECTS[name].files for name in ("grammars", "native", "starters"))
_PROBES_NEED, _STARTERS_NEED = (PROJECTS[name].dependencies for name in ("probes", "starters"))


@dataclass(frozen=True, slots=True)
class Edit:
    """What a developer does between two builds.  files: path → its new text; None: removed; a number: only its time is set."""

    name: str
    files: Mapping[str, str | int | None] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


EDITS: dict[str, tuple[Edit, ...]] = {
    "grammars": (
        Edit("a grammar", {"src/sum.lalrpop": _GRAMMARS["src/sum.lalrpop"].replace("l + r", "l - r")}),
        Edit("tokens of a macro", {"src/lib.rs": _GRAMMARS["src/lib.rs"].replace("[a-z]", "[a-y]")}),
    ),
    "native": (
        Edit("a C++ file of the build script", {"src/add.cc": _NATIVE["src/add.cc"].replace("a + b", "a - b")}),
        Edit("a header that bindgen reads", {"src/shape.h": "struct shape { double size; int corners; };\n"}),
        Edit("a flag for the C++ compiler", env={"CXXFLAGS": "-O1"}),
    ),
    "probes": (
        Edit("a feature", {"Cargo.toml": manifest("probes", _PROBES_NEED.replace('"2"', '{ version = "2", default-features = false }'))}),
        Edit("flags", env={"RUSTFLAGS": "--cfg something"}),
        Edit("another toolchain", {"rust-toolchain.toml": '[toolchain]\nchannel = "nightly"\n'}),
    ),
    "stamps": (
        Edit("a text that is included", {"help.txt": "other\n"}),
        Edit("bytes that are included", {"raw.bin": "other raw\n"}),
        Edit("a variable of option_env!", env={"CHECK_WORD": "word"}),
        Edit("the included text is touched", {"help.txt": 1_600_000_000}),
    ),
    "starters": (
        Edit("another terminal", env={"SSH_TTY": "/dev/pts/7", "JOB_ID": "7"}),
        Edit(
            "a crate under another name",
            {
                "Cargo.toml": manifest(
                    "starters", _STARTERS_NEED.replace('num_enum = "0.7"', 'numbers = { package = "num_enum", version = "0.7" }')
                ),
                "src/main.rs": _STARTERS["src/main.rs"].replace("num_enum::", "numbers::"),
            },
        ),
    ),
    "templates": (
        Edit("a template that another extends", {"templates/base.txt": "changed {% block body %}{% endblock %}\n"}),
        Edit("a new embedded file", {"assets/deep/new.txt": "new\n"}),
        Edit("an embedded file is gone", {"assets/one.txt": None}),
        Edit("an embedded file is another", {"assets/one.txt": "eno\n"}),
        Edit("an embedded file is touched", {"assets/one.txt": 1_600_000_000}),
        Edit("a new file in an included directory", {"tree/new.txt": "new\n"}),
        Edit("what a build script tells by cargo:rustc-env", env={"CHECK_FLAVOUR": "sweet"}),
        Edit("askama is configured", {"askama.toml": '[general]\ndirs = ["tree", "templates"]\n', "tree/hello.txt": "new {{ name }}\n"}),
    ),
    "workspace": (
        Edit("a file in a directory that a macro reads", {"data/two.txt": "two\n"}),
        Edit("a variable that a macro may meet", env={"CHECK_MORE": "more"}),
        Edit("a grammar", {"grammar/src/list.pest": 'number = { (ASCII_DIGIT | ",")+ }\nlist = { SOI ~ number ~ EOI }\n'}),
        Edit("a C file of the build script", {"capi/src/less.c": "int less(int a, int b) { return b - a; }\n"}),
    ),
}
