"""What the other words of the command line do: options for the control program, and --child."""

from __future__ import annotations

import os
import signal
import stat

import pytest
from conftest import Scene

import sccache_py

# --- options ---


@pytest.mark.parametrize("option", ["-s", "--show-stats", "--stop-server", "-h", "-V", "--unknown", "-"])
def test_options_belong_to_the_control_program(native_scene: Scene, option: str) -> None:
    """The client stays small; the words for users live in Python."""
    ctl = native_scene.tool("ctl", 'printf "%s|" "$SCCACHE_PY_CLIENT" "$@"; exit 5')
    native_scene.env["SCCACHE_PY_CTL"] = str(ctl)
    done = native_scene.run(option, "--more")
    assert done.stdout == f"{native_scene.client}|{option}|--more|".encode()
    assert done.returncode == 5


def test_the_version_is_known_without_the_control_program(native_scene: Scene) -> None:
    """The client alone may be copied into a container; `sccache --version` is every script's first probe."""
    for option in ("--version", "-V"):
        done = native_scene.run(option)
        assert done.stdout == f"sccache-py {sccache_py.__version__} (native client)\n".encode()
        assert done.returncode == 0
    assert native_scene.run("-s").returncode == 127


def test_the_control_program_is_found_beside_the_client(native_scene: Scene) -> None:
    """A venv's bin folder need not be in PATH, and the client may be called through a link elsewhere."""
    there = native_scene.directory / "bin"
    there.mkdir()
    copy = there / "sccache-py"
    copy.write_bytes(native_scene.client.read_bytes())
    copy.chmod(0o755)
    native_scene.tool("sccache-py-ctl", "echo beside").rename(there / "sccache-py-ctl")
    (native_scene.tools / "sccache").symlink_to(copy)
    assert native_scene.run("-s", program=native_scene.tools / "sccache").stdout == b"beside\n"


# --- --child ---


def test_a_child_takes_on_what_the_caller_was(scene: Scene) -> None:
    """The server's own umask, limits and ignored signals are no business of a compiler."""
    show = scene.tool("show", "umask; ulimit -Sn; ulimit -Hn; echo $0 $*; cat /proc/$$/stat | cut -d' ' -f19")
    nice = min(os.nice(0) + 4, 19)  # an ordinary user under `nice make test` gets no lower value than he has
    done = scene.run("--child", f"umask=027;nice={nice};limit=7:100:110", str(show), "name", "a", "")
    assert done.stdout.decode().splitlines() == ["0027", "100", "110", f"{show} a", str(nice)]

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    spec = "cpus=0100000000000000;ignore=80000800;block=200"
    done = scene.run("--child", spec, "/bin/cat", "cat", "/proc/self/status", preexec_fn=prepare)
    status = dict(line.split(":\t", 1) for line in done.stdout.decode().splitlines() if ":\t" in line)
    # 32 and 33 are the C library's own, which Python cannot set: a child of GNU make 4.3, and of posix_spawn, has them ignored.
    which = ~0 if scene.kind == "native" else 0x7FFFFFFF
    assert (int(status["SigIgn"], 16) & which, int(status["SigBlk"], 16)) == (0x80000800 & which, 0x200)
    assert status["Cpus_allowed_list"].strip() == "0"


@pytest.mark.parametrize("item", ["limit=7:5", "limit=7:20:10", "nonsense=1", "umask", "cpus=00", ";;", "limit=99:1:1"])
def test_what_a_child_cannot_do_is_passed_over(scene: Scene, item: str) -> None:
    """A wish that fails must not be why a compile fails; those after it still count."""
    done = scene.run("--child", f"{item};umask=022", "/bin/sh", "sh", "-c", "umask")
    assert (done.stdout, done.stderr, done.returncode) == (b"0022\n", b"", 0)


def test_a_child_without_wishes_is_just_the_program(scene: Scene) -> None:
    """The empty SPEC is allowed, and argv[0] is whatever the caller said."""
    done = scene.run("--child", "", "/bin/sh", "other-name", "-c", "cat /proc/$$/cmdline")
    assert done.stdout == b"other-name\0-c\0cat /proc/$$/cmdline\0"


def test_a_child_that_cannot_start_says_so_as_a_shell_would(scene: Scene) -> None:
    """The user sees what the missing compiler would have caused."""
    missing = scene.directory / "missing"
    done = scene.run("--child", "umask=22", str(missing), "cc")
    assert (done.stderr, done.returncode) == (
        f"sccache-py: {missing}: No such file or directory\n".encode(),
        127,
    )
    missing.write_bytes(b"")
    missing.chmod(stat.S_IRUSR)
    done = scene.run("--child", "", str(missing), "cc")
    assert (done.stderr, done.returncode) == (f"sccache-py: {missing}: Permission denied\n".encode(), 126)
