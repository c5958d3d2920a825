"""What a compile for this machine's own processor depends on."""

from __future__ import annotations

from pathlib import Path

from sccache_py.server.process.machine import processor_features, processors_told

_INFO = "processor\t: {}\nmodel\t\t: 17\ncpu MHz\t\t: {}\nflags\t\t: fpu {}\n\n"


def features(directory: Path, name: str, info: str, size: str) -> bytes:
    index = directory / name / "index0"
    index.mkdir(parents=True)
    for field, value in (("level", "2"), ("type", "Unified"), ("size", size), ("coherency_line_size", "64")):
        (index / field).write_text(value + "\n")
    (directory / name / "cpuinfo").write_text(info)
    return processor_features(str(directory / name / "cpuinfo"), str(directory / name))


def test_what_a_processor_can_do_and_its_caches_are_its_features(tmp_path):
    """gcc -march=native passes on sizes of caches, and -g writes them down; clocks and how many there are decide nothing."""
    two = _INFO.format(0, 3000, "avx2") + _INFO.format(1, 2900, "avx2")
    now = features(tmp_path, "now", two, "1024K")
    assert features(tmp_path, "one", _INFO.format(0, 2000, "avx2"), "1024K") == now
    assert features(tmp_path, "older", two.replace("avx2", "avx"), "1024K") != now
    assert features(tmp_path, "smaller", two, "512K") != now


def test_a_machine_that_says_nothing_of_itself_has_features_all_the_same(tmp_path):
    """A container without /proc or /sys."""
    assert processor_features(str(tmp_path / "cpuinfo"), str(tmp_path / "cache"))


def test_how_many_processors_a_macro_is_told_of_is_what_its_caller_may_use():
    """The bytes of a cpu_set_t: taskset makes it smaller."""
    assert processors_told(b"\x01\0") == processors_told(b"\x02") != processors_told(b"\x03")
