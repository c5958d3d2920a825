"""rustc's dep-info: make's syntax, with what it asked of the environment in comments.

Source: rustc 1.95, `rustc_interface/src/passes.rs` (write_out_deps): targets and files with spaces escaped by a backslash, a line
`file:` for each source, then `# env-dep:NAME=VALUE` (or `# env-dep:NAME` where it was not set) with `\\`, newline and carriage
return escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_NAME = re.compile(rb"((?:[^\\ \n]|\\.)+)")


def parse_dep_info(text: bytes) -> tuple[list[bytes], list[bytes]]:
    """Files that the crate was made of, as rustc spelled them, and names of variables that it asked for."""
    files: dict[bytes, None] = {}
    names: dict[bytes, None] = {}
    for line in text.split(b"\n"):
        if line.startswith(b"# env-dep:"):
            names[line[len(b"# env-dep:") :].partition(b"=")[0]] = None
            continue
        if line.startswith(b"#"):
            continue
        target, colon, rest = _split_rule(line)
        if colon and not rest:
            files[_unescape(target)] = None
        elif colon:
            for name in _NAME.findall(rest):
                files[_unescape(name)] = None
    return list(files), list(names)


def replace_targets(text: bytes, replace: Callable[[bytes], bytes], in_rest: Callable[[bytes], bytes] = bytes) -> bytes:
    """Put the target of each rule through `replace`, all else through `in_rest`.  `file:` without prerequisites names a source."""
    lines = []
    for line in text.split(b"\n"):
        target, colon, rest = _split_rule(line)
        is_rule = colon and rest and not line.startswith(b"#")
        lines.append(replace(target) + colon + in_rest(rest) if is_rule else in_rest(line))
    return b"\n".join(lines)


def _split_rule(line: bytes) -> tuple[bytes, bytes, bytes]:
    """A colon ends the target only before a space or at the end: a path may have one."""
    if line.endswith(b":"):
        return line[:-1], b":", b""
    target, colon, rest = line.partition(b": ")
    return target, colon, rest


def _unescape(name: bytes) -> bytes:
    return name.replace(b"\\ ", b" ")
