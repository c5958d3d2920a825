"""What both clients do with standard input: send it when it is wanted, put it back when it was in vain."""

from __future__ import annotations

import os

import pytest
from conftest import Scene
from fake_server import Peer

from sccache_py.wire import Kind


@pytest.mark.parametrize("size", [0, 5, 70_000, 1 << 20])
def test_standard_input_is_sent_when_it_is_wanted(scene: Scene, size: int) -> None:
    """rustc - and gcc -x c - are probes that build systems run by the hundred."""
    text = os.urandom(size)
    got = []

    def talk(peer: Peer) -> None:
        peer.request()
        got.append(peer.stdin())
        peer.exit(4)

    with scene.serve(talk):
        assert scene.run("cat", input=text).returncode == 4
    assert got == [text]


@pytest.mark.parametrize("size", [0, 5, 70_000, 1 << 20])
def test_standard_input_that_was_read_in_vain_still_reaches_the_compiler(scene: Scene, size: int) -> None:
    """What the server declines after it saw the input must compile as if nobody had looked."""
    text = os.urandom(size)

    def talk(peer: Peer) -> None:
        peer.request()
        assert peer.stdin() == text
        peer.send(Kind.PASS, b"not cached")

    with scene.serve(talk):
        done = scene.run("cat", input=text)
    assert done.stdout == text


def test_standard_input_is_given_back_when_the_server_dies_over_it(scene: Scene) -> None:
    """The same, when there was no answer at all."""

    def talk(peer: Peer) -> None:
        peer.request()
        peer.stdin()

    with scene.serve(talk):
        assert scene.run("cat", input=b"int x;").stdout == b"int x;"


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3_000_000])
def test_more_standard_input_than_the_server_takes_goes_to_the_compiler_whole(scene: Scene, size: int) -> None:
    """A megabyte is read before we know that there is more: it has to be put back in front of the rest."""
    text = os.urandom(size)

    def talk(peer: Peer) -> None:
        peer.request()
        assert peer.stdin() is None

    with scene.serve(talk):
        assert scene.run("cat", input=text).stdout == text


def test_nobody_is_left_holding_the_callers_pipes(scene: Scene) -> None:
    """The helper that feeds a long input must not keep a caller waiting for the end of stdout."""
    text = os.urandom(2_000_000)
    scene.tool("cc1x", "head -c 3")

    def talk(peer: Peer) -> None:
        peer.request()
        peer.stdin()

    r, w = os.pipe()
    with scene.serve(talk):
        process = scene.start("cc1x", stdin=r)
        os.close(r)
        with open(w, "wb", buffering=0) as pipe:
            try:
                pipe.write(text)
            except BrokenPipeError:
                pass
            # the writer keeps its end open, and still everything comes to an end
            out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == (text[:3], 0)


def test_standard_input_from_a_file_keeps_its_place(scene: Scene) -> None:
    """`{ read line; cc -x c -; } < file`: the compiler starts where the caller stopped, on the very file."""
    source = scene.cwd / "source"
    source.write_bytes(b"skipped\nint x;\n")

    def talk(peer: Peer) -> None:
        peer.request()
        assert peer.stdin() == b"int x;\n"
        peer.send(Kind.PASS)

    with scene.serve(talk), source.open("rb", buffering=0) as f:
        f.seek(8)
        assert scene.run("cat", stdin=f).stdout == b"int x;\n"


def test_standard_input_that_is_closed_is_empty(scene: Scene) -> None:
    """A daemon's build has no stdin at all."""

    def talk(peer: Peer) -> None:
        request = peer.request()
        assert not request["descriptors"] & 1
        assert peer.stdin() == b""
        peer.exit(9)

    with scene.serve(talk):
        done = scene.run("-c", 'exec "$0" cat <&-', str(scene.client), program="/bin/sh")
    assert done.returncode == 9


def test_standard_input_that_cannot_be_read_is_left_as_it_is(scene: Scene) -> None:
    """Closed, or a directory: the compiler's complaint about it is part of its answer."""

    def talk(peer: Peer) -> None:
        peer.request()
        assert peer.stdin() == b""
        peer.send(Kind.PASS)

    with scene.serve(talk):
        if scene.kind == "native":  # Python itself refuses to start on a directory
            done = scene.run("-c", 'LC_ALL=C exec "$0" cat </', str(scene.client), program="/bin/sh")
            assert b"Is a directory" in done.stderr
        done = scene.run("-c", 'LC_ALL=C exec "$0" cat <&-', str(scene.client), program="/bin/sh")
        assert b"Bad file descriptor" in done.stderr


def test_standard_input_that_does_not_block_is_waited_for(scene: Scene) -> None:
    """EAGAIN is not the end of a source file."""
    got = []

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDIN_WANTED)
        os.write(w, b"int ")
        os.write(w, b"x;")
        os.close(w)
        got.append(peer.rest_of_stdin())
        peer.exit()

    r, w = os.pipe()
    os.set_blocking(r, False)
    with scene.serve(talk), open(r, "rb") as source:
        assert scene.run("cat", stdin=source).returncode == 0
    assert got == [b"int x;"]
