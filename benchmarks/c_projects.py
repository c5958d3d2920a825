"""C and C++ projects whose builds through the cache are held against plain ones (c_check.py), as a table.

Each stands for something that the others have not: a build system, a way to call the compiler, assembler, archives, depfiles
under names of its own.  The sources are Debian's; nothing is installed but what `needs` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tools

# How the build is told of the cache.
PREFIX = "prefix"  # CC="LAUNCHER gcc"
LAUNCHER = "launcher"  # CMAKE_C_COMPILER_LAUNCHER
LINKS = "links"  # a directory of links named gcc, g++, cc … first on PATH


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to build one project.

    steps: shell lines, run one after another in the source; {cc}, {cxx} (with the launcher where it belongs before them), {gcc}, {gxx}
    (without), {flags}, {launcher} and {jobs} are filled in.  All but the last step are configuring, which is counted apart.
    """

    project: str
    system: str
    entry: str
    steps: tuple[str, ...]
    needs: tuple[str, ...] = ()
    long: bool = False  # minutes for one build: only if it is named
    unique: int = 0  # compiles of files whose names are drawn by lot


def _debian(name: str) -> Callable[[], Path]:
    return lambda: tools.debian_source(name)


SOURCES: dict[str, Callable[[], Path]] = {
    "busybox": _debian("busybox"),
    "c-ares": _debian("c-ares"),
    "cjson": _debian("cjson"),
    "curl": _debian("curl"),
    "fmt": _debian("fmtlib"),
    "freetype": _debian("freetype"),
    "git": _debian("git"),
    "googletest": _debian("googletest"),
    "libffi": _debian("libffi"),
    "libpng": _debian("libpng1.6"),
    "imgui": _debian("imgui"),
    "libevent": _debian("libevent"),
    "lua": _debian("lua5.4"),
    "mbedtls": _debian("mbedtls"),
    "musl": _debian("musl"),
    "nghttp2": _debian("nghttp2"),
    "nginx": _debian("nginx"),
    "openssl": _debian("openssl"),
    "pcre2": _debian("pcre2"),
    "re2": _debian("re2"),
    "redis": _debian("redis"),
    "spdlog": _debian("spdlog"),
    "sqlite": _debian("sqlite3"),
    "tmux": _debian("tmux"),
    "zlib": _debian("zlib"),
    "zstd": _debian("libzstd"),
}

_CMAKE = (
    "cmake -S {where} -B build -G {generator} -DCMAKE_C_COMPILER={{gcc}} -DCMAKE_CXX_COMPILER={{gxx}} -DCMAKE_BUILD_TYPE=None"
    " -DCMAKE_C_COMPILER_LAUNCHER={{launcher}} -DCMAKE_CXX_COMPILER_LAUNCHER={{launcher}} -DCMAKE_ASM_COMPILER_LAUNCHER={{launcher}}"
    " '-DCMAKE_C_FLAGS={{flags}}' '-DCMAKE_CXX_FLAGS={{flags}}' {options}"
)


def _cmake(project: str, options: str = "", where: str = ".", target: str = "all", generator: str = "Ninja", long: bool = False) -> Cell:
    configure = _CMAKE.format(where=where, generator="Ninja" if generator == "Ninja" else "'Unix Makefiles'", options=options)
    build = f"ninja -C build -j{{jobs}} {target}" if generator == "Ninja" else f"make -C build -j{{jobs}} {target}"
    programs = ("cmake", "ninja") if generator == "Ninja" else ("cmake", "make")
    return Cell(project, f"cmake + {'ninja' if generator == 'Ninja' else 'make'}", LAUNCHER, (configure, build), programs, long)


def _autotools(project: str, entry: str, options: str = "", target: str = "", *needs: str, long: bool = False) -> Cell:
    configure = f"./configure CC='{{cc}}' CXX='{{cxx}}' CFLAGS='{{flags}}' CXXFLAGS='{{flags}}' {options}"
    return Cell(project, "autotools", entry, (configure, f"make -j{{jobs}} {target}"), ("make", *needs), long)


def _make(project: str, entry: str, words: str, needs: tuple[str, ...] = (), before: tuple[str, ...] = (), long: bool = False) -> Cell:
    return Cell(project, "make", entry, (*before, f"make -j{{jobs}} CC='{{cc}}' CXX='{{cxx}}' {words}"), ("make", *needs), long)


# Debian leaves them to be made, those of Unicode from data that is not everywhere: empty ones do, for nothing is linked.
RE2_TABLES = "perl re2/make_perl_groups.pl > re2/perl_groups.cc && touch re2/unicode_casefold.cc re2/unicode_groups.cc"


def _with_tables(re2: Cell) -> Cell:
    return dataclasses.replace(re2, steps=(RE2_TABLES, *re2.steps), needs=(*re2.needs, "perl"))


# Debian's makefile wants an installed libtool, and makes this header.
_LUA = (
    "echo '#define DEB_HOST_MULTIARCH \"x\"' > lua5.4-deb-multiarch.h"
    " && make -j{jobs} CC='{cc}' CFLAGS='-DLUA_USE_LINUX {flags}' $(ls *.c | sed 's/c$/o/')"
    " && ar rcs liblua.a $(ls l*.o | grep -v -e lua.o -e luac.o) && {cc} -o luai lua.o liblua.a -lm -ldl"
)

CELLS = (
    # Built as Linux is: depfiles by -Wp,-MD that a program of its own reads and removes, -include, tries of options in $(shell).
    Cell(
        "busybox", "kbuild", LINKS,
        (
            "KCONFIG_NOTIMESTAMP=1 make defconfig",
            "KCONFIG_NOTIMESTAMP=1 make -j{jobs} CC={cc} HOSTCC={cc} CONFIG_EXTRA_CFLAGS='{flags}' libbb/ archival/ coreutils/ shell/",
        ),
        ("make",), long=True,
    ),
    _cmake("c-ares", "-DCARES_STATIC=ON -DCARES_STATIC_PIC=ON", long=True),
    _make("cjson", PREFIX, "all CFLAGS='-std=c89 -fPIC {flags}'"),
    _cmake("cjson", "-DENABLE_CUSTOM_COMPILER_FLAGS=ON -DBUILD_SHARED_AND_STATIC_LIBS=ON"),
    _autotools("curl", LINKS, "--with-openssl --disable-ldap --without-libpsl --without-zstd --without-brotli", long=True),
    _cmake("fmt", "-DFMT_TEST=OFF"),
    _cmake("fmt", "-DFMT_TEST=ON -DFMT_PEDANTIC=ON", target="chrono-test color-test os-test", generator="make", long=True),
    _cmake("freetype", "-DBUILD_SHARED_LIBS=ON", long=True),
    _make("git", PREFIX, "NO_OPENSSL=1 NO_CURL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PYTHON=1 CFLAGS='{flags}' git", long=True),
    _cmake("googletest"),
    Cell(
        "imgui", "a loop of the shell", PREFIX,
        ("mkdir o && for f in *.cpp; do {cxx} {flags} -MMD -MF o/$f.d -c $f -o o/$f.o || exit; done && ar rcs o/libimgui.a o/*.o",),
    ),
    _cmake("libevent", "-DEVENT__DISABLE_OPENSSL=ON -DEVENT__DISABLE_MBEDTLS=ON -DEVENT__DISABLE_TESTS=ON"),
    _autotools("libffi", PREFIX),
    dataclasses.replace(_autotools("libffi", LINKS), unique=1),  # config.guess asks `cc`, in a directory made by mktemp
    _autotools("libpng", PREFIX),
    _cmake("libpng", "-DPNG_TESTS=OFF", generator="make"),  # they link with a library that Debian's patch names otherwise
    *(Cell("lua", "make's own rules", entry, (f"cd src && rm Makefile && {_LUA}",), ("make",)) for entry in (PREFIX, LINKS)),
    _cmake("mbedtls", "-DENABLE_TESTING=OFF -DENABLE_PROGRAMS=OFF -DUSE_SHARED_MBEDTLS_LIBRARY=ON", long=True),
    # A C library: 1,300 small sources, assembler among them, and a configure script of its own.
    Cell(
        "musl", "its own configure", PREFIX,
        ("CC='{cc}' CFLAGS='{flags}' ./configure --prefix=/nonexistent --disable-wrapper", "make -j{jobs}"), ("make",), long=True,
    ),
    _cmake("nghttp2", "-DENABLE_LIB_ONLY=ON -DENABLE_STATIC_LIB=ON"),
    Cell(
        "nginx", "its own configure", LINKS,
        ("./configure --with-cc={cc} --with-cc-opt='{flags}' --without-http_rewrite_module --with-threads", "make -j{jobs}"), ("make",),
    ),
    # Perl makes its makefiles, headers and assembler sources; its date is in one header.
    Cell(
        "openssl", "perl's Configure", PREFIX,
        (
            "CC='{cc}' CFLAGS='{flags}' ./Configure linux-x86_64 no-shared no-tests",
            "export SOURCE_DATE_EPOCH=1600000000; make -j{jobs} build_generated && make -j{jobs} libssl.a",
        ),
        ("make", "perl"), long=True,
    ),
    # Beside its sources: everything is called ../something.
    Cell(
        "pcre2", "autotools, out of tree", LINKS,
        ("mkdir out && cd out && ../configure CC={cc} CFLAGS='{flags}' --enable-jit", "make -C out -j{jobs}"), ("make",),
    ),
    _with_tables(
        _make("re2", PREFIX, "CXXFLAGS='-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -I. {flags}' obj/libre2.a")
    ),
    _with_tables(_cmake("re2", "-DRE2_BUILD_TESTING=OFF")),
    # Its makefile adds -g by DEBUG, and names the build after the time unless SOURCE_DATE_EPOCH tells one.
    Cell(
        "redis", "make", PREFIX,
        ("SOURCE_DATE_EPOCH=1600000000 make -j{jobs} -C src CC='{cc}' OPT='{flags}' DEBUG= MALLOC=libc redis-server redis-cli",), ("make",),
        long=True,
    ),
    # A precompiled header of CMake's.  Wants libfmt installed, as Debian's spdlog does.
    _cmake("spdlog", "-DSPDLOG_FMT_EXTERNAL=ON -DSPDLOG_ENABLE_PCH=ON -DSPDLOG_BUILD_EXAMPLE=ON -DSPDLOG_BUILD_TESTS=OFF", long=True),
    _autotools("sqlite", PREFIX, "--disable-amalgamation --disable-shared --disable-tcl --disable-readline", "libsqlite3.la", "tclsh"),
    # The amalgamation: one source of eight megabytes.
    _autotools("sqlite", LINKS, "--disable-shared --disable-tcl --disable-readline", "libsqlite3.la", "tclsh", long=True),
    _autotools("tmux", PREFIX, long=True),  # wants libevent and ncurses installed
    Cell("zlib", "its own configure", PREFIX, ("CC='{cc}' CFLAGS='{flags}' ./configure", "make -j{jobs}"), ("make",)),
    _make("zstd", LINKS, "-C lib CFLAGS='{flags}' libzstd.a libzstd"),
    _make("zstd", PREFIX, "-C programs CFLAGS='{flags}' zstd", long=True),
    _cmake("zstd", where="build/cmake"),
    Cell(
        "zstd", "meson", PREFIX,
        (
            "CC='{cc}' CXX='{cxx}' CFLAGS='{flags}' meson setup out build/meson --buildtype=plain -Dbin_programs=false",
            "ninja -C out -j{jobs}",
        ),
        ("meson", "ninja"),
    ),
)  # fmt: skip
