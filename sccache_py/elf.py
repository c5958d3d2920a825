"""What a program file is, from its own words: can our library be preloaded into it?

ld.so complains on stderr about a library of another class or C library, and the user would read it; so this is decided beforehand, from
the image and not from its name.  Source: System V ABI, "Object Files" and "Program Loading"; elf(5).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

_HEAD_BYTES = 256  # of a script the kernel takes no more, either
_SEGMENTS_BYTES = 65536  # nor a larger table of segments
_INTERPRETER_BYTES = 4096  # nor a longer name
_PT_INTERP = 3
_SHT_SYMTAB = 2
_SHT_DYNAMIC = 6
_SHT_DYNSYM = 11
_DT_NEEDED = 1
_STB_WEAK = 2
_STT_FUNC = 2
_SHF_COMPRESSED = 0x800
_SHN_XINDEX = 0xFFFF
_SECTION_BYTES = 64
_SYMBOL_BYTES = 24


_C_SOURCE = re.compile(rb"\0([^\0]*\.(?:c|cc|cpp|cxx|c\+\+|C|m|mm))(?=\0)")


class Image(NamedTuple):
    elf_class: int  # 32 or 64; 0: not ELF
    interpreter: str  # ld.so's path; "" for a static program
    script: str  # what follows #!, first word; "" if it is none


def read_image(read: Callable[[int, int], bytes]) -> Image:
    """read: so many bytes of a file, from an offset on.

    Linkers write an interpreter's name near the start; patchelf moves it behind whatever else a position-independent program has.
    """
    head = read(_HEAD_BYTES, 0)
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return Image(0, "", words[0].decode("utf-8", "surrogateescape") if words else "")
    if not head.startswith(b"\x7fELF") or len(head) < 64:
        return Image(0, "", "")
    is_64 = head[4] == 2
    order = "<" if head[5] == 1 else ">"
    try:
        if is_64:
            (table,) = struct.unpack_from(order + "Q", head, 32)
            size, count = struct.unpack_from(order + "HH", head, 54)
        else:
            (table,) = struct.unpack_from(order + "I", head, 28)
            size, count = struct.unpack_from(order + "HH", head, 42)
        segments = read(min(size * count, _SEGMENTS_BYTES), table)
        for index in range(count):
            at = index * size
            (kind,) = struct.unpack_from(order + "I", segments, at)
            if kind == _PT_INTERP:
                offset, length = (
                    (*struct.unpack_from(order + "Q", segments, at + 8), *struct.unpack_from(order + "Q", segments, at + 32))
                    if is_64
                    else (*struct.unpack_from(order + "I", segments, at + 4), *struct.unpack_from(order + "I", segments, at + 16))
                )
                name = read(min(length, _INTERPRETER_BYTES), offset).rstrip(b"\0")
                return Image(64 if is_64 else 32, name.decode("utf-8", "surrogateescape"), "")
    except (struct.error, OverflowError):
        pass
    return Image(64 if is_64 else 32, "", "")


def hides_text(file: memoryview) -> bool:
    """Whether an ELF file has compressed sections (`-gz`): what is in them, no search for a path would find."""
    if len(file) < 64 or bytes(file[:4]) != b"\x7fELF":
        return False
    order = "<" if file[5] == 1 else ">"
    # Of a section: name, type, flags, address, offset, size, link, …
    section, header, table_at = ("IIQQQQIIQQ", "HHH", 40) if file[4] == 2 else ("IIIIIIIIII", "HHH", 32)
    try:
        (table,) = struct.unpack_from(order + ("Q" if file[4] == 2 else "I"), file, table_at)
        if table == 0:
            return False
        size, count, names_at = struct.unpack_from(order + header, file, 58 if file[4] == 2 else 46)
        first = struct.unpack_from(order + section, file, table)
        count = count or first[5]
        names = struct.unpack_from(order + section, file, table + size * (first[6] if names_at == _SHN_XINDEX else names_at))
        if b".zdebug_" in bytes(file[names[4] : names[4] + names[5]]):  # as binutils had it before ELF knew how
            return True
        return any(s[2] & _SHF_COMPRESSED for s in struct.iter_unpack(order + section, file[table : table + size * count]))
    except (struct.error, OverflowError):
        return True


# What stands in the symbols, panic messages and metadata of a shared library that holds a crate which calls the kernel without the C
# library: by its code files can be opened unobserved.  That it never runs there cannot be seen.
OWN_CALLS = (b"rustix", b"linux_raw_sys", b"linux-raw-sys")


# What glibc calls the variables.
_ENVIRON = (b"environ", b"__environ", b"_environ")


def takes_environment(library: memoryview) -> bool:
    """Whether a crate that is a shared library (a proc-macro) can walk the whole environment: then it asks for no variable by name.

    It does that by libc's `environ`, which is among the symbols that it imports only if std::env::vars or std::process::Command is
    linked in.  What is not a 64-bit ELF file with a `.rustc` section is no crate: False.
    """
    try:
        sections = _Sections(library)
        return sections.is_crate and any(name == b"environ" for name, _ in sections.imports())
    except (struct.error, OverflowError, IndexError):
        return True


def may_walk(library: memoryview) -> bool:
    """Whether a library that is no crate may walk the environment, as Python's does when it starts.  Unobserved: C need not call strlen."""
    try:
        sections = _Sections(library)
        return not sections.is_crate and any(name in _ENVIRON for name, _ in sections.imports())
    except (struct.error, OverflowError, IndexError):
        return True


def needed(library: memoryview) -> tuple[str, ...]:
    """Names of the libraries that the loader loads with this one."""
    try:
        return tuple(name.decode("utf-8", "surrogateescape") for name in _Sections(library).needed())
    except (struct.error, OverflowError, IndexError, ValueError):
        return ()


def walk_shows(library: memoryview) -> bool:
    """Whether such a crate cannot walk `environ` unobserved: Rust measures each entry by strlen, which C need not do.

    C leaves the names of its sources among the symbols.  A library without symbols does not say.
    """
    try:
        names = _Sections(library).symbol_names()
        return bool(names) and set(_C_SOURCE.findall(names)) <= {b"crtstuff.c"}
    except (struct.error, OverflowError, IndexError):
        return False


def tells_age(library: memoryview) -> bool:
    """Whether a crate that is a shared library may ask when a file that it holds open was changed.

    std asks by statx for the size of all that it reads whole, which tells the time as well.  Who wants to know the time has
    std::fs::File::metadata linked in, or calls statx itself: std imports that weakly.  A library without symbols does not say.
    """
    try:
        sections = _Sections(library)
        if not sections.is_crate:
            return False
        names = sections.symbol_names()
        # In both of rustc's manglings.
        return not names or b"4File8metadata" in names or any(name == b"statx" and not weak for name, weak in sections.imports())
    except (struct.error, OverflowError, IndexError):
        return True


def exports_any(library: memoryview, names: frozenset[bytes]) -> bool:
    """Whether a shared library defines one of these symbols for the loader; True for what cannot be read."""
    try:
        return any(name in names for name in _Sections(library).exports())
    except (struct.error, OverflowError, IndexError):
        return True


# Functions of std, as both of rustc's manglings have them.
CREATED = b"8Metadata7created"
# Those of MetadataExt are no calls any more where a macro is optimized.
ACCESSED = (
    b"8Metadata8accessed", b"MetadataExt$GT$5atime", b"MetadataExt$GT$8st_atime", b"11MetadataExt5atime", b"11MetadataExt8st_atime",
)  # fmt: skip
ARGUMENTS = (b"3env4args", b"3env7args_os")
# Where there are no symbols: std::env::args unwraps each word, and its panic would say where.  Of args_os nothing remains.
ARGUMENTS_PANIC = b"library/std/src/env.rs"
# Nearly every macro has it: std's backtraces ask where the program lies.
PROGRAM = b"3env11current_exe"

# proc_macro::Span's: where a source lies, whatever maps say.
LOCAL_FILE = b"4Span10local_file"


def links_in(library: memoryview, *functions: bytes) -> bool | None:
    """Whether a crate that is a shared library has one of these functions linked in; None: it has no symbols, and does not say."""
    try:
        sections = _Sections(library)
        names = sections.symbol_names() if sections.is_crate else b"-"
        return any(function in names for function in functions) if names else None
    except (struct.error, OverflowError, IndexError):
        return None


# Functions of std, in both of its manglings, that look at a path and tell no more than whether it is there and what kind it is.
_WHETHER = re.compile(
    rb"\0(?:_ZN3std4path4Path|_RNvMs\w*_NtCs\w+_3std4pathNtB\w+_4Path)"
    rb"(?:6exists|10try_exists|7is_file|6is_dir|10is_symlink)(?:17h[0-9a-f]{16}E|Cs\w+)?(?=\0)"
)


def whether_functions(library: memoryview) -> tuple[tuple[int, int], ...]:
    """Where Path::exists and kin lie in a crate that is a shared library: (first address, the first behind it)."""
    try:
        return tuple(_Sections(library).functions(_WHETHER))
    except (struct.error, OverflowError, IndexError):
        return ()


class _Sections:
    """The section headers of a 64-bit ELF file; of others there are none.  Everything raises what struct and indexing raise."""

    def __init__(self, file: memoryview) -> None:
        self._file = file
        self._all: list[tuple[int, ...]] = []
        self.is_crate = False  # rustc keeps what a crate offers in a section of its own
        if len(file) < 64 or bytes(file[:5]) != b"\x7fELF\x02":
            return
        self._order = "<" if file[5] == 1 else ">"
        (table,) = struct.unpack_from(self._order + "Q", file, 40)
        count, names_at = struct.unpack_from(self._order + "HH", file, 60)
        self._all = [struct.unpack_from(self._order + "IIQQQQIIQQ", file, table + i * _SECTION_BYTES) for i in range(count)]
        names = self._all[names_at][4]
        self.is_crate = any(bytes(file[names + s[0] : names + s[0] + 7]) == b".rustc\0" for s in self._all)

    def imports(self) -> Iterator[tuple[bytes, bool]]:
        """(beginning of a name, whether the symbol is weak): undefined symbols that the loader looks for."""
        return ((name, weak) for name, weak, is_defined in self._dynamic() if not is_defined)

    def exports(self) -> Iterator[bytes]:
        """Beginnings of the names that it defines for others."""
        return (name for name, _, is_defined in self._dynamic() if is_defined)

    def needed(self) -> Iterator[bytes]:
        for section in self._all:
            if section[1] == _SHT_DYNAMIC:
                strings = self._all[section[6]]
                names = bytes(self._file[strings[4] : strings[4] + strings[5]])
                for tag, value in struct.iter_unpack(self._order + "qQ", self._file[section[4] : section[4] + section[5]]):
                    if tag == _DT_NEEDED:
                        yield names[value : names.index(b"\0", value)]

    def _dynamic(self) -> Iterator[tuple[bytes, bool, bool]]:
        for section in self._all:
            if section[1] != _SHT_DYNSYM:
                continue
            strings = self._all[section[6]][4]
            for at in range(section[4], section[4] + section[5], _SYMBOL_BYTES):
                name, kind, _, defined_in = struct.unpack_from(self._order + "IBBH", self._file, at)
                text = bytes(self._file[strings + name : strings + name + 16])
                yield text.partition(b"\0")[0], kind >> 4 == _STB_WEAK, defined_in != 0

    def symbol_names(self) -> bytes:
        """All names of the symbol table for debuggers, which `strip` removes."""
        tables = [self._all[s[6]] for s in self._all if s[1] == _SHT_SYMTAB]
        return b"".join(bytes(self._file[s[4] : s[4] + s[5]]) for s in tables)

    def functions(self, named: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
        """(first address, the first behind it) of those whose name, between two NULs, matches."""
        for section in self._all:
            if section[1] != _SHT_SYMTAB or not self.is_crate:
                continue
            strings = self._all[section[6]]
            names = {found.start() + 1 for found in named.finditer(self._file[strings[4] : strings[4] + strings[5]])}
            symbols = self._file[section[4] : section[4] + section[5]]
            for name, kind, _, _, address, size in struct.iter_unpack(self._order + "IBBHQQ", symbols):
                if name in names and kind & 0xF == _STT_FUNC:
                    yield address, address + size
