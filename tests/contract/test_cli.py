"""What people and scripts see of sccache-py-ctl, against a server that only pretends."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Scene, write_program
from fake_server import Conversation, Peer

import sccache_py
from sccache_py.client import render
from sccache_py.stats import Stats, Surroundings, as_answer
from sccache_py.wire import PROTOCOL, Kind

CTL = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from sccache_py.client.cli import main
sys.exit(main())
"""


def some_stats() -> dict[str, Any]:
    stats = Stats()
    stats.count("compile_requests", 3)
    stats.count_language("cache_hits", "Rust", "rust")
    return as_answer(stats, Surroundings(version="0.1.0", cache_location='Local disk: "/c"'))


def answering(expected: str, answer: Any) -> Conversation:
    """A conversation that answers one CONTROL of that name."""

    def talk(peer: Peer) -> None:
        frame = peer.next_frame()
        if frame is None:
            return  # someone only looked whether anybody listens
        protocol, version, name, arguments = peer.unpack(frame)
        assert (protocol, version, arguments) == (PROTOCOL, sccache_py.__version__, {})
        assert name == expected
        peer.answer(answer)

    return talk


@pytest.fixture
def ctl(short_directory: Path) -> Scene:
    """A scene whose client is sccache-py-ctl."""
    program = write_program(short_directory / "sccache-py-ctl", CTL.format(python=sys.executable, root=str(ROOT)))
    return Scene("ctl", program, short_directory)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """stdout by lines, without the alignment, which tests/unit/test_stats.py looks at."""
    return [" ".join(line.split()) for line in done.stdout.decode().splitlines()]


def printing_server(scene: Scene, answer: Any) -> None:
    """Lets `sccache-py-server --print-stats` print this."""
    script = f'test "$*" = --print-stats && echo {shlex.quote(json.dumps(answer))}'
    scene.env["SCCACHE_PY_SERVER"] = str(scene.tool("server-program", script))


def test_statistics_are_shown_as_text(ctl: Scene) -> None:
    """The first thing that anybody tries."""
    with ctl.serve(answering("stats", some_stats())):
        done = ctl.run("--show-stats")
    assert (done.stderr, done.returncode) == (b"", 0)
    assert {"Compile requests 3", "Cache hits (Rust) 1"} < set(lines(done))


@pytest.mark.parametrize("words", [["-s"], ["-s", "--stats-format=json"]])
def test_whoever_reads_the_first_lines_only_hears_no_complaint(ctl: Scene, words: list[str]) -> None:
    """`--show-stats | head -3`."""
    reader, writer = os.pipe()
    os.close(reader)
    with ctl.serve(answering("stats", some_stats())), os.fdopen(writer, "wb") as stdout:
        done = ctl.run(*words, stdout=stdout)
    assert (done.stderr, done.returncode) == (b"", 0)


@pytest.mark.parametrize("word", ["-s", "--help", "-V"])
def test_output_that_cannot_be_written_is_an_error_in_one_line(ctl: Scene, word: str) -> None:
    """`--show-stats >statistics` on a full disk: not a traceback, and not the status of success."""
    with ctl.serve(answering("stats", some_stats())), open("/dev/full", "wb") as stdout:
        done = ctl.run(word, stdout=stdout)
    assert (done.stderr, done.returncode) == (b"sccache-py: error: No space left on device\n", 2)


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("word", ["-s", "--help", "-V"])
def test_whoever_closed_the_output_is_told_nothing(ctl: Scene, word: str, closed: str) -> None:
    """Daemons call programs so; what is printed must not go to the connection, which would have the number of the standard output."""
    with ctl.serve(answering("stats", some_stats())):
        done = ctl.run("-c", f'exec "$0" {word} {closed}', str(ctl.client), program="/bin/sh")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


@pytest.mark.parametrize("words", [["-s", "--stats-format", "json"], ["--stats-format=json", "--show-stats"]])
def test_statistics_are_shown_as_json(ctl: Scene, words: list[str]) -> None:
    """For scripts, of which some parse it and some search it: one line, sccache's keys, and no more spaces than sccache has."""
    with ctl.serve(answering("stats", some_stats())):
        done = ctl.run(*words)
    value = json.loads(done.stdout)
    assert done.stdout.count(b"\n") == 1
    assert value["stats"]["cache_hits"] == {"counts": {"Rust": 1}, "adv_counts": {"rust": 1}}
    assert b'"cache_hits":{"counts":{"Rust":1},"adv_counts":{"rust":1}}' in done.stdout


def test_advanced_statistics_tell_the_compiler(ctl: Scene) -> None:
    """--show-adv-stats."""
    with ctl.serve(answering("stats", some_stats())):
        assert b"Cache hits (rust)" in ctl.run("--show-adv-stats").stdout


def test_statistics_without_a_server_come_from_the_store_and_start_nothing(ctl: Scene) -> None:
    """Yesterday's totals are still interesting, and asking is not compiling."""
    printing_server(ctl, some_stats())
    done = ctl.run("-s")
    assert "Compile requests 3" in lines(done)
    assert not list(ctl.directory.glob("s.*"))


def test_statistics_behind_a_server_of_another_version_come_from_the_store(ctl: Scene) -> None:
    """It leaves; what it counted is stored."""
    printing_server(ctl, some_stats())

    def talk(peer: Peer) -> None:
        peer.control()
        peer.send(Kind.LEAVING, b"9.9")

    with ctl.serve(talk):
        assert "Compile requests 3" in lines(ctl.run("-s"))


def test_statistics_that_cannot_be_read_are_an_error(ctl: Scene) -> None:
    """Zeros would be a lie."""
    done = ctl.run("-s")
    assert done.returncode == 2
    assert done.stderr.startswith(b"sccache-py: error: cannot read the statistics")


def test_zeroing_asks_the_server(ctl: Scene) -> None:
    """Before a benchmark."""
    with ctl.serve(answering("zero", {})):
        done = ctl.run("-z")
    assert (done.stdout, done.returncode) == (b"Statistics zeroed.\n", 0)


def test_stopping_waits_until_nobody_listens_and_shows_what_was_counted(ctl: Scene) -> None:
    """`--stop-server && --start-server` must not meet the old one; sccache shows statistics here, too."""

    def talk(peer: Peer) -> None:
        answering("stop", some_stats())(peer)
        server.stop_listening()

    with ctl.serve(talk) as server:
        done = ctl.run("--stop-server")
    assert (done.stderr, done.returncode) == (b"", 0)
    assert lines(done)[:2] == ["Stopping sccache-py server...", "Compile requests 3"]


def test_stopping_what_does_not_run_is_an_error(ctl: Scene) -> None:
    """Exit status 2, as sccache has it: CI scripts say `|| true`."""
    done = ctl.run("--stop-server")
    assert (done.stderr, done.returncode) == (b"sccache-py: error: no server runs\n", 2)


def test_starting_what_runs_already_is_an_error(ctl: Scene) -> None:
    """The same, in words that scripts look for."""
    with ctl.serve(lambda peer: None):
        done = ctl.run("--start-server")
    assert (done.stderr, done.returncode) == (b"sccache-py: error: Server startup failed: the server runs already\n", 2)


def test_a_server_is_started_and_stopped(ctl: Scene) -> None:
    """With the native client's folder, which the server needs for --child."""
    reports = ctl.startable_server()
    ctl.env["SCCACHE_PY_CLIENT"] = "/where/it/is/sccache-py"
    done = ctl.run("--start-server")
    assert (done.stdout, done.stderr, done.returncode) == (b"sccache-py: Starting the server...\n", b"", 0)
    (report,) = (json.loads(p.read_text()) for p in reports.glob("*.json"))
    assert report["args"] == ["--socket", str(ctl.socket), "--native", "/where/it/is", "--ready-fd", "3"]
    assert "SCCACHE_PY_CLIENT" not in report["environment"]
    assert ctl.run("--stop-server").returncode == 0
    assert ctl.run("--stop-server").returncode == 2


def test_a_server_that_does_not_start_is_explained(ctl: Scene) -> None:
    """Compiles are silent about it; here is where a user finds out."""
    done = ctl.run("--start-server")
    missing = ctl.env["SCCACHE_PY_SERVER"]
    assert done.stderr == f"sccache-py: error: Server startup failed: the server does not start ({missing} is missing)\n".encode()
    assert done.returncode == 2


def test_whoever_asks_for_a_server_is_not_told_of_the_last_failure(ctl: Scene) -> None:
    """A setting was wrong, a compile noticed, the user mended it and asks at once."""
    ctl.startable_server()
    (ctl.directory / "s.failed").touch()
    done = ctl.run("--start-server")
    assert (done.stdout, done.stderr, done.returncode) == (b"sccache-py: Starting the server...\n", b"", 0)
    assert ctl.run("--stop-server").returncode == 0


def test_sccaches_port_is_another_server_and_no_error(ctl: Scene) -> None:
    """CI scripts set it for each job and ask for the statistics at the end; a port itself is open to every user of the machine."""
    del ctl.env["SCCACHE_SERVER_UDS"]
    ctl.env["XDG_RUNTIME_DIR"] = str(ctl.directory)
    ctl.startable_server()
    for port in ("4226", "4227"):
        ctl.env["SCCACHE_SERVER_PORT"] = port
        done = ctl.run("--start-server")
        assert (done.stdout, done.stderr, done.returncode) == (b"sccache-py: Starting the server...\n", b"", 0)
    assert len(list((ctl.directory / "sccache-py").glob("*.sock"))) == 2
    for port in ("4226", "4227"):
        ctl.env["SCCACHE_SERVER_PORT"] = port
        assert ctl.run("--stop-server").returncode == 0


def test_a_server_that_closes_without_an_answer_is_reported(ctl: Scene) -> None:
    """Not a traceback."""
    with ctl.serve(lambda peer: None):
        done = ctl.run("-s")
    assert done.returncode == 2
    assert done.stderr.startswith(b"sccache-py: error: the server does not answer")


def test_jobs_are_a_table(ctl: Scene) -> None:
    """Why does my build wait?  A path with brackets is no markup, one that is not UTF-8 no crash."""
    jobs = [
        {"state": "running", "seconds": 3.14, "tokens": 3, "compiler": "rustc", "source": "/a/[red]/lib.rs"},
        {"state": "waiting", "seconds": 0.5, "tokens": 0, "compiler": "gcc", "source": "/b/\udcff.c"},
    ]
    ctl.env["COLUMNS"] = "100"
    with ctl.serve(answering("jobs", {"size": 4, "in_use": 3, "jobs": jobs})):
        out = ctl.run("--show-jobs").stdout.decode()
    table = out.splitlines()
    assert table[0] == "3 of 4 job tokens in use, 2 under way"
    assert table[1].split() == ["State", "For", "Tokens", "Compiler", "Source"]
    assert table[2].split() == ["running", "3.1", "s", "3", "rustc", "/a/[red]/lib.rs"]
    assert table[3].split()[:1] == ["waiting"]


@pytest.mark.parametrize("columns", [30, 80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_column_of_the_table_is_cut_or_left_out(columns: int, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal with 80 columns a cross compiler's name cost the process ids their last digits; and what grep reads is in one line."""
    job = {"state": "waits for a job token", "seconds": 12.3, "tokens": 1, "pid": 123456, "build": "cargo 12345"}
    job |= {"compiler": "/usr/bin/x86_64-linux-gnu-g++-12", "source": "/c/" + "deep/" * 30 + "x.cpp"}
    monkeypatch.setenv("COLUMNS", str(columns))
    printed = io.StringIO()
    monkeypatch.setattr(printed, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", printed)
    render.jobs({"size": 2, "in_use": 2, "jobs": [job]})
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).splitlines()]
    assert lines[1] == ["State", "For", "Tokens", "Process", "Build", "Compiler", "Source"]
    assert " ".join(lines[2][:-1]) == "waits for a job token 12.3 s 1 123456 cargo 12345 x86_64-linux-gnu-g++-12"
    assert "".join([lines[2][-1], *(line[0] for line in lines[3:])]) == job["source"]
    assert terminal or len(lines) == 3


def test_which_client_it_is_stands_behind_the_version(ctl: Scene) -> None:
    """The first line of every bug report."""
    version = f"sccache-py {sccache_py.__version__}"
    assert ctl.run("--version").stdout.decode() == f"{version} (Python client)\n"
    ctl.env["SCCACHE_PY_CLIENT"] = "/x/sccache-py"
    assert ctl.run("-V").stdout.decode() == f"{version} (native client)\n"


def test_help_is_help_and_nothing_is_a_mistake(ctl: Scene) -> None:
    """On stdout and 0 when asked for, on stderr and 2 when not."""
    asked, unasked = ctl.run("--help"), ctl.run()
    assert (asked.returncode, unasked.returncode) == (0, 2)
    assert asked.stdout == unasked.stderr
    assert b"--show-stats" in asked.stdout
    assert ctl.run("--no-such-option").returncode == 2
    assert ctl.run("--stats-format", "xml", "-s").returncode == 2
    assert max(map(len, asked.stdout.splitlines())) < 80


@pytest.mark.parametrize("count", ["x", "0", "-1", "2.5", "", "1_0", "٣"])
def test_a_number_of_jobs_that_is_none_is_named(ctl: Scene, count: str) -> None:
    """In words for users, not with a name of ours."""
    done = ctl.run(f"--jobs={count}")
    assert done.returncode == 2
    assert done.stderr.decode().endswith(f"argument --jobs: {count!r} is not a whole number of 1 or more\n")


def test_a_compiler_is_compiled_with(ctl: Scene) -> None:
    """ctl itself is the fallback client when that is how it is called."""

    def talk(peer: Peer) -> None:
        assert peer.request()["argv"] == [b"cc1x", b"-c"]
        peer.exit(5)

    ctl.tool("cc1x", "")
    with ctl.serve(talk):
        assert ctl.run("cc1x", "-c").returncode == 5


def test_the_native_client_and_ctl_work_together(native_client: Path, ctl: Scene) -> None:
    """The whole way of `sccache-py --show-stats`."""
    ctl.env["SCCACHE_PY_CTL"] = str(ctl.client)
    with ctl.serve(answering("stats", some_stats())):
        done = subprocess.run([native_client, "-s"], env=ctl.env, capture_output=True, check=True)
    assert b"Cache hits (Rust)" in done.stdout
    done = subprocess.run([native_client, "--version"], env=ctl.env, capture_output=True, check=True)
    assert b"(native client)" in done.stdout
    assert os.access(native_client, os.X_OK)
