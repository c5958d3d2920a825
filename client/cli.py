"""The words for people: statistics, starting and stopping the server.  Installed as `sccache-py-ctl`.

The native client executes this for every option but --child, with SCCACHE_PY_CLIENT naming itself; with a
compiler as first word it is the fallback client.  Words, exit codes and the order of things follow sccache's
command line.  Talks to a server by CONTROL frames (docs/protocol.md, section 2) and imports nothing of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sccache_py
from sccache_py import config, unheeded
from sccache_py.client import fallback, render
from sccache_py.client.become import Ourselves, executed_program, original_environment
from sccache_py.client.place import NOBODY, Place, dial, find_place, start_and_dial
from sccache_py.client.silence import ask_for_a_word, end_server, process_of
from sccache_py.errors import FormatError
from sccache_py.stats import as_json, from_answer
from sccache_py.wire import PROTOCOL, Decoder, Kind, ProtocolError, encode_frame

Answer = dict[str, Any]

# A server that is there answers in milliseconds, also under load; `stop` takes as long as what still runs.
ANSWER_S = 10.0
SILENCE_S = 2.0  # without a word; then it is asked for one, and has as long again
GONE_S = 5.0

_MOST_JOBS = 1 << 31  # what a message can say; the server has a limit of its own

EPILOG = """\
Environment: SCCACHE_DIR (where the cache is), SCCACHE_CACHE_SIZE (10G),
SCCACHE_IDLE_TIMEOUT (seconds, 0: never), SCCACHE_JOBS (compiles at once),
SCCACHE_SERVER_UDS (the server's socket), SCCACHE_ERROR_LOG and SCCACHE_LOG,
SCCACHE_RECACHE, SCCACHE_NO_CACHE, and more: see the README.
"""


class ControlError(Exception):
    """What is told to the user, with exit status 2 as sccache has it."""


def parser() -> argparse.ArgumentParser:
    """The options; also what --help prints."""
    words = argparse.ArgumentParser(
        prog="sccache-py",
        usage="sccache-py [OPTION] | COMPILER ARGUMENT...",
        description="A compiler cache: put it in front of the compiler, or set\nRUSTC_WRAPPER=sccache-py.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    one = words.add_mutually_exclusive_group()
    one.add_argument("-s", "--show-stats", action="store_true", help="show the statistics; starts no server")
    one.add_argument("--show-adv-stats", action="store_true", help="the same, by compiler, with more lines")
    one.add_argument("-z", "--zero-stats", action="store_true", help="start counting anew")
    one.add_argument("--start-server", action="store_true", help="start the server; a compile would do so, too")
    one.add_argument("--stop-server", action="store_true", help="stop it when all that runs is done and stored")
    one.add_argument("--show-jobs", action="store_true", help="what is being compiled, and who holds job tokens")
    one.add_argument("--jobs", type=_count, metavar="N", help="from now on, N compiles at once; see SCCACHE_JOBS")
    one.add_argument(
        "--jobserver",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="run a build (make, ninja, cargo, cmake --build) within the server's job tokens; "
        "--jobserver=pipe or =fifo to say how they reach it",
    )
    one.add_argument("-V", "--version", action="store_true", help="the version, and which client this is")
    words.add_argument("--stats-format", choices=("text", "json"), default="text", help="text, or json for scripts")
    return words


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return min(int(text), _MOST_JOBS)


class Control:
    """The server of this user and cache, as seen from the command line."""

    def __init__(self, environ: Mapping[bytes, bytes], ourselves: Ourselves) -> None:
        place = find_place(environ)
        if place is None:
            raise ControlError("the socket's name is too long; use a shorter SCCACHE_SERVER_UDS")
        self.place: Place = place
        native = environ.get(b"SCCACHE_PY_CLIENT", b"")
        self._environ = {name: value for name, value in environ.items() if name != b"SCCACHE_PY_CLIENT"}
        self._native = os.path.dirname(native) or os.fsencode(ourselves.directory)
        self._server = ourselves.beside("sccache-py-server", "SCCACHE_PY_SERVER", environ)

    def connect(self) -> socket.socket | None:
        """A connection, or None if no server runs.  Raises ControlError if one cannot be used."""
        try:
            return dial(self.place)
        except OSError as e:
            if e.errno in NOBODY:
                return None
            name = os.fsdecode(self.place.name)
            raise ControlError(f"cannot connect to the server at {name}: {e.strerror}") from e

    def forget_failure(self) -> None:
        """Whoever asks for a start, perhaps with another setting, is not told of the last one."""
        with contextlib.suppress(OSError):
            if self.place.is_safe():
                os.unlink(self.place.beside(b".failed"))

    def start(self) -> socket.socket:
        """A connection to a server that was started just now.  Raises ControlError."""
        connection = start_and_dial(self.place, self._server, self._native, self._environ)
        if connection is None:
            raise ControlError(f"the server does not start ({self._why_not()})")
        return connection

    def _why_not(self) -> str:
        if not self.place.is_safe():
            runtime = os.fsdecode(self.place.runtime or b"")
            return f"{runtime} is not a directory that belongs to you and that nobody else can write to"
        if not os.access(self._server, os.X_OK):
            return f"{os.fsdecode(self._server)} is missing"
        if self.place.runtime is None and (wrong := self._wrong_socket()):
            return wrong
        if wrong := self._wrong_setting():
            return wrong
        if os.path.exists(self.place.beside(b".failed")):
            return "it failed within the last ten seconds, or does now; SCCACHE_ERROR_LOG names its log"
        return "another start is under way"

    def _wrong_socket(self) -> str | None:
        """Why nobody could listen where SCCACHE_SERVER_UDS says."""
        name = os.fsdecode(self.place.name)
        directory = os.path.dirname(name) or "."
        if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
            return f"SCCACHE_SERVER_UDS: {directory} is no directory that you can write to"
        if os.path.exists(name) and not stat.S_ISSOCK(os.stat(name).st_mode):
            return f"SCCACHE_SERVER_UDS: {name} is there, and is no socket"
        return None

    def _set(self) -> tuple[dict[str, str], bytes | None]:
        """What the server would read its settings from.  Raises OSError."""
        environ = {os.fsdecode(name): os.fsdecode(value) for name, value in self._environ.items()}
        environ["HOME"] = environ.get("HOME") or os.path.expanduser("~")
        path = config.file_path(environ)
        if path is None or not os.path.exists(path):
            return environ, None
        with open(path, "rb") as f:
            return environ, f.read()

    def _wrong_setting(self) -> str | None:
        """What the server would say of its settings, had it somewhere to say it."""
        try:
            config.settings(*self._set())
        except (config.ConfigError, OSError) as e:
            return str(e)
        return None

    def without_effect(self) -> list[str]:
        """What is set and means nothing to the server that was started just now, each with the reason."""
        try:
            environ, toml = self._set()
            settings = config.settings(environ, toml)
            reasons = unheeded.reasons(environ, toml)
        except (config.ConfigError, OSError):
            return []  # changed meanwhile
        named = environ.get("SCCACHE_CONF")
        if named and not os.path.exists(named):
            reasons.append(f"SCCACHE_CONF: {named} is not there")
        if not settings.read_only and not (os.path.isdir(settings.directory) and os.access(settings.directory, os.W_OK | os.X_OK)):
            reasons.append(f"nothing is kept when the server ends: {settings.directory} is no directory that can be written to")
        log = environ.get("SCCACHE_ERROR_LOG")
        if log and not os.path.isfile(log):
            reasons.append(f"SCCACHE_ERROR_LOG: no log, {log} cannot be written to")
        return reasons

    def ask(
        self, connection: socket.socket, name: str, timeout_s: float | None = ANSWER_S, arguments: Answer | None = None
    ) -> Answer | None:
        """The answer to a CONTROL, or None: it is of another version, and leaves.  Closes the connection.

        Raises ControlError if no answer comes; a server that does not even show that it lives when it shall stop is killed.
        """
        from sccache_py.codec import pack, unpack  # not needed for --help and --version

        frame = encode_frame(Kind.CONTROL, pack([PROTOCOL, sccache_py.__version__, name, arguments or {}]))
        with connection:
            connection.settimeout(SILENCE_S)
            try:
                connection.sendall(frame)
                kind, payload = _next_frame(connection, timeout_s)
                if kind is Kind.LEAVING:
                    return None
                answer = unpack(payload) if kind is Kind.ANSWER else None
            except TimeoutError as e:
                killed = name == "stop" and end_server(self.place, connection)
                became = "; it was killed" if killed else ""
                raise ControlError(f"the server (process {process_of(connection)}) does not answer{became}") from e
            except (OSError, ProtocolError, FormatError) as e:
                raise ControlError(f"the server does not answer: {e}") from e
        if not isinstance(answer, dict):
            raise ControlError("the server does not understand")
        return answer

    def stored_stats(self) -> Answer:
        """The statistics from the store, read by the server's program.  Raises ControlError."""
        program = os.fsdecode(self._server)
        if wrong := self._wrong_setting():
            raise ControlError(wrong)
        try:
            printed = subprocess.run([program, "--print-stats"], env=self._environ, stdout=subprocess.PIPE, check=True).stdout
            answer = json.loads(printed)
        except (OSError, ValueError, subprocess.CalledProcessError) as e:
            raise ControlError(f"cannot read the statistics: {e}") from e
        if not isinstance(answer, dict):
            raise ControlError(f"{program} --print-stats: not a JSON object")
        return answer

    def stats(self) -> Answer:
        """The statistics, from wherever they are."""
        connection = self.connect()
        answer = self.ask(connection, "stats") if connection is not None else None
        return answer if answer is not None else self.stored_stats()

    def wait_gone(self) -> None:
        """Until nobody listens any more, so that --start-server may follow at once.  Raises ControlError."""
        give_up = time.monotonic() + GONE_S
        while (connection := self.connect()) is not None:
            connection.close()
            if time.monotonic() > give_up:
                raise ControlError("the server said that it would stop, but it still listens")
            time.sleep(0.01)


def _next_frame(connection: socket.socket, timeout_s: float | None) -> tuple[Kind, bytes]:
    """Raises TimeoutError: not within timeout_s, or it does not even say that it lives."""
    decoder, asked = Decoder(), False
    give_up = time.monotonic() + timeout_s if timeout_s is not None else None
    while (frame := decoder.next_frame()) is None or frame[0] is Kind.ALIVE:
        if frame is not None:
            continue
        try:
            data = connection.recv(1 << 16)
        except TimeoutError:
            if asked or (give_up is not None and time.monotonic() > give_up):
                raise
            ask_for_a_word(connection)
            asked = True
            continue
        if not data:
            raise ProtocolError("it closed the connection")
        decoder.feed(data)
        asked = False
    return frame


def show_stats(answer: Answer, as_text: bool, advanced: bool = False) -> None:
    """Print them; JSON is one line without spaces, as sccache's, in which scripts search for `"counts":{"Rust":2}`."""
    stats, surroundings = from_answer(answer)
    if as_text:
        print(render.stats(stats, surroundings, advanced), end="")
    else:
        print(json.dumps(as_json(stats, surroundings), separators=(",", ":")))


def start_server(control: Control) -> None:
    """Start it; a server that runs already is an error, as with sccache."""
    connection = control.connect()
    if connection is not None:
        connection.close()
        raise ControlError("the server runs already")
    print("sccache-py: Starting the server...", flush=True)
    control.forget_failure()
    control.start().close()
    for reason in control.without_effect():
        print(f"sccache-py: {reason}", file=sys.stderr)


def stop_server(control: Control, as_text: bool) -> None:
    """Stop it and show the statistics that it leaves; no server is an error, as with sccache."""
    connection = control.connect()
    if connection is None:
        raise ControlError("no server runs")
    if as_text:
        print("Stopping sccache-py server...", flush=True)
    answer = control.ask(connection, "stop", timeout_s=None)
    control.wait_gone()
    show_stats(control.stored_stats() if answer is None else answer, as_text)


def zero_stats(control: Control) -> None:
    """Zero what is counted and what is stored; only a server can do that, so one is started if none runs."""
    connection = control.connect() or control.start()
    if control.ask(connection, "zero") is None:
        # Of another version; once it is gone, ours does it.
        control.wait_gone()
        control.ask(control.start(), "zero")
    print("Statistics zeroed.")


def show_jobs(control: Control, as_text: bool) -> None:
    """What runs now."""
    connection = control.connect()
    answer = control.ask(connection, "jobs") if connection is not None else None
    if answer is None:
        raise ControlError("no server runs")
    if as_text:
        render.jobs(answer)
    else:
        print(json.dumps(answer))


def set_jobs(control: Control, count: int) -> None:
    """Change how many compiles run at once; only a running server has such a number."""
    connection = control.connect()
    answer = control.ask(connection, "jobs", arguments={"size": count}) if connection is not None else None
    if answer is None:
        raise ControlError("no server runs; SCCACHE_JOBS is what one starts with")
    print(f"{answer.get('size', 0)} job tokens, {answer.get('in_use', 0)} in use")


def wrap_build(words: Sequence[str], environ: Mapping[bytes, bytes], ourselves: Ourselves) -> int:
    """`--jobserver[=STYLE] [--] COMMAND…`; returns only if there is no command."""
    style = words[0].partition("=")[2] or None
    command = list(words[2:] if words[1:2] == ["--"] else words[1:])
    if not command or style not in (None, "fifo", "pipe"):
        print("sccache-py: usage: sccache-py --jobserver[=pipe|=fifo] -- COMMAND ARGUMENT...", file=sys.stderr)
        return 2
    from sccache_py.client import jobserver_wrapper  # not needed for anything else

    def connect() -> tuple[Place, socket.socket] | None:
        try:
            control = Control(environ, ourselves)
            return control.place, control.connect() or control.start()
        except ControlError:
            return None

    jobserver_wrapper.main(command, style, connect, {n: v for n, v in environ.items() if n != b"SCCACHE_PY_CLIENT"})


def run(options: argparse.Namespace, environ: Mapping[bytes, bytes], ourselves: Ourselves) -> None:
    """Do what the options say.  Raises ControlError."""
    if options.start_server:
        try:
            start_server(Control(environ, ourselves))
        except ControlError as e:
            raise ControlError(f"Server startup failed: {e}") from e  # scripts look for these words of sccache's
        return
    control = Control(environ, ourselves)
    as_text = options.stats_format == "text"
    if options.show_stats or options.show_adv_stats:
        show_stats(control.stats(), as_text, options.show_adv_stats)
    elif options.zero_stats:
        zero_stats(control)
    elif options.stop_server:
        stop_server(control, as_text)
    elif options.show_jobs:
        show_jobs(control, as_text)
    elif options.jobs is not None:
        set_jobs(control, options.jobs)


def _have_descriptors() -> None:
    """Whoever closed his output (`>&-`) is told nothing, and no socket or file of ours takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    """The program `sccache-py-ctl`.  Returns the exit status: 0, or 2 for what the user has to know."""
    words = list(sys.argv[1:] if argv is None else argv)
    environ = original_environment()
    ourselves = Ourselves(executed_program())
    if words and not words[0].startswith("-"):
        fallback.wrap_command(words, ourselves, environ)
    if words[:1] == ["--"] and len(words) > 1:  # as sccache reads it: no options of ours
        fallback.wrap_command(words[1:], ourselves, environ)
    if words and words[0].partition("=")[0] == "--jobserver":
        return wrap_build(words, environ, ourselves)
    _have_descriptors()
    try:
        status = answer(words, environ, ourselves)
        sys.stdout.flush()
    except ControlError as e:
        print(f"sccache-py: error: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `--show-stats | head -3`; the interpreter, too, shall not complain when it ends
        _drop_output()
    except OSError as e:
        _drop_output()
        print(f"sccache-py: error: {e.strerror or e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    else:
        return status
    return 0


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(words: Sequence[str], environ: Mapping[bytes, bytes], ourselves: Ourselves) -> int:
    """What the options ask for; the exit status.  Raises ControlError, OSError if it cannot be written."""
    try:
        options = parser().parse_args(words)
    except SystemExit as e:  # --help, or a word that is none of ours: it was told
        return e.code if isinstance(e.code, int) else 2
    if options.version:
        client = "native client" if environ.get(b"SCCACHE_PY_CLIENT") else "Python client"
        print(f"sccache-py {sccache_py.__version__} ({client})")
    elif not words or not any(v for name, v in vars(options).items() if name != "stats_format"):
        parser().print_help(sys.stderr)
        return 2
    else:
        run(options, environ, ourselves)
    return 0
