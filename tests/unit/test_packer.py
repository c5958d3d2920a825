"""Who packs stored files, when one of them is not there any more."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sccache_py.keys import Hasher
from sccache_py.model import Output, Result
from sccache_py.server.process.quiet import Quiet
from sccache_py.server.store.packing import Packer


def digest(content: bytes) -> bytes:
    hasher = Hasher()
    hasher.update(content)
    return hasher.digest()


def result(content: bytes) -> Result:
    return Result((Output("$out/x", 0o644, len(content), digest(content), None, False),), b"", b"", 0, 0)


@dataclass
class Files:
    """What a packer asks of a keeper."""

    directory: Path
    packed: list[bytes] = field(default_factory=list)

    async def plain_files(self, result: Result) -> tuple[list[str], str]:
        return [str(self.directory / o.digest.hex()) for o in result.outputs], str(self.directory / "scratch")

    async def replace_by_pack(self, key: bytes, result: Result, path: str, no_longer_needed: Iterable[bytes]) -> None:
        Path(path).unlink()
        self.packed.append(key)


def test_one_file_that_has_gone_leaves_nothing_else_unpacked(tmp_path: Path) -> None:
    """Another server on this cache directory packed it in that moment, or it was culled: the packing process was killed for its answer,
    and all that waited stayed as it was.
    """
    contents = {b"gone": b"1" * 100_000, b"second": b"2" * 100_000, b"third": b"3" * 100_000}
    for key, content in contents.items():
        if key != b"gone":
            (tmp_path / digest(content).hex()).write_bytes(content)

    async def pack() -> list[bytes]:
        files: Any = Files(tmp_path)
        packer = Packer(files, [sys.executable, "-m", "sccache_py.server.store.pack_process", "--pack", "1"], Quiet(lambda: False))
        for key, content in contents.items():
            packer.note(key, result(content))
        await packer.finish(60)
        return files.packed

    assert asyncio.run(pack()) == [b"second", b"third"]
