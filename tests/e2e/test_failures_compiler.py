"""What a caller may have set up differently, limits, libraries, descriptors and wrappers: the same with the cache as without.

`World.same_as_plain` runs each line without the cache, then as a miss, then as a hit, and compares exit status, stdout, stderr and
every output with its mode.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Outcome, World, rustc, tree, wait_until, world

__all__ = ["world"]  # fixtures

pytestmark = pytest.mark.slow


# --- what is said ---


def test_errors_are_the_compilers_byte_for_byte(world: World) -> None:
    """Syntax errors, unknown options, missing sources, missing crates."""
    good = world.crate()
    for line in (
        world.crate("broken", "fn f( {\n"),
        world.crate("missing", "extern crate no_such_crate;\n"),
        [*good, "--no-such-option"],
        [*good, "-C", "opt-level=9"],
        [*good[:-1], "no-such-file.rs"],
        [rustc(), "--crate-type"],
        [rustc(), "/"],
        [rustc()],
    ):
        world.same_as_plain(*line)


def test_a_source_of_bytes_that_are_no_text_is_named_as_the_compiler_names_it(world: World) -> None:
    """File names are bytes; so are arguments."""
    name = b"s\xff\xfe.rs"
    Path(os.fsdecode(os.fsencode(world.cwd) + b"/" + name)).write_text("pub fn f() {}\n")
    line = [os.fsencode(a) for a in world.crate()[:-1]]
    for argv in ([*line, name], [*line, b"--cfg", b'x="\xff"', b"unit.rs"], [*line, b"\xff\xff"], [*line, b"--cfg", b"a\nb", b"unit.rs"]):
        plain, cached = world.run_plain(*argv), world.run(*argv)
        assert cached.returncode == plain.returncode
        # rustc 1.95 panics, and says in which thread.
        assert re.sub(rb"\(\d+\)", b"", cached.stderr) == re.sub(rb"\(\d+\)", b"", plain.stderr)


def test_a_place_of_bytes_that_are_no_text_is_served(world: World) -> None:
    """The same for where one stands."""
    world.cwd = Path(os.fsdecode(os.fsencode(world.cwd) + b"/o\xff t"))
    world.out = world.cwd / "out"
    world.out.mkdir(parents=True)
    # rustc 1.95 panics at such a cwd.
    (world.cwd / "unit.c").write_text("int x;\n")
    assert world.same_as_plain("/usr/bin/gcc", "-c", "unit.c", "-o", "out/unit.o") == Outcome(0, b"", b"")


def test_two_megabytes_of_arguments_arrive(world: World) -> None:
    """Linkers' and code generators' command lines; the system's own limit is about there."""
    many = [w for i in range(15000) for w in ("--cfg", f'feature_number_{i}="{"x" * 60}"')]
    assert world.same_as_plain(*world.crate(), *many).returncode == 0


def test_what_does_not_fit_into_a_command_line_fits_into_a_response_file(world: World) -> None:
    """rustc's @path."""
    line = world.crate()
    (world.cwd / "arguments").write_text("\n".join(w for i in range(50000) for w in ("--cfg", f'f{i}="{"x" * 60}"')))
    assert world.same_as_plain(*line, "@arguments").returncode == 0


def test_an_environment_of_odd_strings_arrives_or_harms_nothing(world: World) -> None:
    """Newlines, bytes that are no text, empty names, strings without '=', the same name twice: all of it was seen in the wild."""
    line = world.crate("unit", 'pub const A: &str = env!("A"); pub const T: Option<&str> = option_env!("TWICE");\n')
    odd = [b"A=one\ntwo\n", b"TWICE=1", b"TWICE=2", b"NOTHING", b"", b"=x", b"B=\xff\xfe", b"C==", b"D="]
    environ = [*(os.fsencode(f"{n}={v}") for n, v in world.env.items()), *odd]

    def execute(*argv: str) -> Outcome:
        words = (ctypes.c_char_p * (len(argv) + 1))(*map(os.fsencode, argv), None)
        variables = (ctypes.c_char_p * (len(environ) + 1))(*environ, None)
        libc = ctypes.CDLL(None)
        return world.run_plain("/bin/false", preexec_fn=lambda: libc.execve(words[0], words, variables))

    results = []
    for argv in (line, [str(world.client), *line], [str(world.client), *line]):
        world.wipe()
        results.append((execute(*argv), tree(world.out)))
        if argv is not line:
            world.settle()
    assert results[0] == results[1] == results[2]
    assert results[0][0].returncode == 0


# --- what it may ---


def test_limits_niceness_umask_and_processors_are_the_callers(world: World) -> None:
    """A build under `nice`, `ulimit` and `taskset` stays there, though its compilers are children of a server that is not."""
    shows = "ulimit -a >&2; ulimit -Ha >&2; nice >&2; umask >&2; grep -E 'Cpus_allowed_list|SigBlk|SigIgn|SigCgt' /proc/self/status >&2"
    line = [world.scripted_rustc(shows), *world.crate()[1:]]
    assert world.run(*world.crate("first")).returncode == 0

    def confine() -> None:
        os.nice(7)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        resource.setrlimit(resource.RLIMIT_CPU, (100, 200))
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 60_000_000))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    plain = world.same_as_plain(*line, times=1, preexec_fn=confine)
    assert b"\n%d\n" % min(os.nice(0) + 7, 19) in plain.stderr
    assert world.counts().total("compilations") == 2
    other = [line[0], *world.crate("other")[1:]]
    assert b"\n%d\n" % os.nice(0) in world.same_as_plain(*other, times=1).stderr


def test_a_limit_on_file_sizes_ends_a_compile_as_without_the_cache(world: World) -> None:
    """`ulimit -f`: also where the result is there, and only needed to be written."""
    line = world.crate("unit", "pub static BIG: [u8; 300000] = [7; 300000];\n")
    assert world.same_as_plain(*line).returncode == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    world.wipe()
    plain = world.run_plain(*line, preexec_fn=limit)
    assert plain.returncode != 0
    world.wipe()
    assert world.run(*line, preexec_fn=limit).returncode == plain.returncode


def test_a_limit_on_file_sizes_is_not_for_our_notes(world: World) -> None:
    """`ulimit -f 0` around a question or a syntax check that writes nothing: the client died of SIGXFSZ where no server was."""
    world.env["SCCACHE_PY_SERVER"] = "/nonexistent"
    (world.cwd / "unit.c").write_text("int answer;\n")

    def write_nothing() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    line = ("gcc", "-fsyntax-only", "unit.c")
    assert world.run(*line, preexec_fn=write_nothing) == world.run_plain(*line, preexec_fn=write_nothing)


def test_a_limit_on_processor_time_ends_a_compile_as_without_the_cache(world: World) -> None:
    """`ulimit -t`: the compiler is killed, not the server, and the client says how."""
    line = [world.scripted_rustc("while :; do :; done"), *world.crate()[1:]]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    plain = world.run_plain(*line, preexec_fn=limit)
    assert plain.returncode == -signal.SIGXCPU
    assert world.run(*line, preexec_fn=limit) == plain
    assert world.ask("ping")


_PR_CAPBSET_DROP = 24  # <linux/prctl.h>
_CAP_SYS_NICE, _CAP_SYS_RESOURCE = 23, 24  # <linux/capability.h>


def weakly(prepare: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """What a process does before it executes a program that may not raise what `prepare` lowers: as an ordinary user's, if we are root."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def run() -> None:
        prepare()
        for capability in (_CAP_SYS_NICE, _CAP_SYS_RESOURCE) if os.getuid() == 0 else ():
            if prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "a capability cannot be dropped")

    return run


def weak_server(world: World, prepare: Callable[[], object]) -> None:
    try:
        started = world.run_plain(str(world.client), "--start-server", preexec_fn=weakly(prepare))
    except subprocess.SubprocessError as e:
        pytest.skip(f"cannot do without capabilities here: {e}")
    if started.returncode != 0:
        pytest.skip(f"cannot do without capabilities here: {started.stderr!r}")


def test_a_caller_that_is_more_urgent_than_the_server_compiles_by_itself(world: World) -> None:
    """The first client was under `nice make`: an ordinary user's server stays as nice as that, and must not pass it on."""
    own = os.nice(0)
    weak_server(world, lambda: os.nice(5))
    line = [world.scripted_rustc("nice >&2"), *world.crate()[1:]]
    assert world.same_as_plain(*line, preexec_fn=weakly()).stderr == b"%d\n" % own
    assert world.counts().reasons() == {"caller may do more than the server": 2}
    assert world.counts().total("compilations") == 0
    assert world.same_as_plain(*line, preexec_fn=weakly(lambda: os.nice(5))).stderr == b"%d\n" % (own + 5)
    assert world.counts().total("compilations") == 1


@pytest.mark.parametrize("number", [resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_STACK])
def test_a_caller_that_may_use_more_than_the_server_compiles_by_itself(world: World, number: int) -> None:
    """The first client was under a hard limit, from which there is no way back."""
    low = {resource.RLIMIT_NOFILE: 500, resource.RLIMIT_AS: 8 << 30, resource.RLIMIT_STACK: 4 << 20}[number]
    weak_server(world, lambda: resource.setrlimit(number, (low, low)))
    assert world.same_as_plain(*world.crate(), preexec_fn=weakly()).returncode == 0
    assert world.counts().reasons() == {"caller may do more than the server": 2}
    assert world.same_as_plain(*world.crate(), preexec_fn=weakly(lambda: resource.setrlimit(number, (low, low)))).returncode == 0
    assert world.counts().total("compilations") == 1


def test_a_server_makes_way_for_a_caller_who_may_do_more(world: World) -> None:
    """Last night's `nice make` must not cost everybody the cache for as long as somebody builds."""
    weak_server(world, lambda: os.nice(5))
    line = [world.scripted_rustc("nice >&2"), *world.crate()[1:]]
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 11.0)  # not at once: two such callers would chase each other
    assert world.run(*line).stderr == b"%d\n" % os.nice(0)
    assert len(world.server_pids()) == 2
    assert world.counts().total("compilations") == 1


# --- libraries of the caller's ---


def test_preloaded_libraries_of_the_caller_work_and_stay_his(world: World) -> None:
    """fakeroot, faketime, a profiler: in his compiles, and in nobody else's."""
    library = world.directory / "libhello.so"
    source = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <string.h>
        #include <unistd.h>
        __attribute__((constructor)) static void hello(void)
        {
            if (strcmp(program_invocation_short_name, "rustc") == 0 && write(2, "hello\\n", 6) < 0)
                _exit(1);
        }
    """
    (world.directory / "hello.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, world.directory / "hello.c"], check=True)
    line = world.crate()
    assert world.same_as_plain(*line).stderr == b""
    preloaded = {**world.env, "LD_PRELOAD": str(library)}
    assert world.same_as_plain(*line, env=preloaded).stderr == b"hello\n"
    assert world.same_as_plain(*line).stderr == b""


def test_library_paths_of_the_caller_reach_the_compiler(world: World) -> None:
    """cargo sets LD_LIBRARY_PATH for every rustc."""
    line = [world.scripted_rustc('echo "$LD_LIBRARY_PATH" >&2'), *world.crate()[1:]]
    assert world.same_as_plain(*line, env={**world.env, "LD_LIBRARY_PATH": "/one:/two"}).stderr == b"/one:/two\n"
    other = [line[0], *world.crate("other")[1:]]
    assert world.same_as_plain(*other).stderr == b"\n"


# --- descriptors ---


def test_descriptors_of_the_caller_on_the_command_line_work(world: World) -> None:
    """Bash's <(…), /dev/stdin: in the server these numbers mean other files, its log and its database among them."""
    world.crate()
    (world.cwd / "arguments").write_text("--crate-type=lib\n--emit=metadata\n")
    out = f"--out-dir={world.out}"
    # Not an ordinary user's: rustc makes a temporary file beside what it writes.
    through_dev = [f"{rustc()} --crate-type=lib --emit=dep-info={to}" for to in ("/dev/stdout unit.rs", "/dev/fd/8 unit.rs 8>&1")]
    through_dev = through_dev if os.access("/dev", os.W_OK) else []
    for line in (
        f"{rustc()} {out} --emit=metadata --crate-type=lib --crate-name=unit <(cat unit.rs)",
        f"{rustc()} {out} --emit=metadata --crate-type=lib --crate-name=unit /dev/stdin <unit.rs",
        f"{rustc()} {out} --emit=metadata --crate-type=lib --crate-name=unit /dev/fd/7 7<unit.rs",
        f"{rustc()} {out} @<(cat arguments) unit.rs",
        f"{rustc()} {out} @/dev/stdin unit.rs <arguments",
        *through_dev,
        "gcc -x c -c -o out/x.o <(echo 'int x;')",
        "gcc -x c -c -o out/x.o /dev/fd/9 9<<<'int x;'",
        "gcc -x c -c -o out/x.o -include <(echo 'int y;') /dev/null",
    ):
        world.wipe()
        plain = world.run_plain("bash", "-c", line), tree(world.out)
        assert plain[0].returncode == 0, plain
        for _ in range(2):
            world.wipe()
            assert (world.run_plain("bash", "-c", f"{world.client} {line}"), tree(world.out)) == plain, line


def test_a_program_that_is_a_fifo_is_the_callers_trouble(world: World) -> None:
    """Whoever opens it waits: not all of the server's threads."""
    os.mkfifo(world.directory / "rustc-fifo", 0o755)
    for _ in range(6):
        assert world.run(str(world.directory / "rustc-fifo"), "unit.rs").returncode == 126
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert world.counts().total("cache_misses") == 1


# --- where it stands ---


def test_a_working_directory_that_is_gone_is_the_compilers_to_complain_of(world: World) -> None:
    """`rm -rf` of a checkout in which a build still runs."""
    gone = world.directory / "gone"
    line = [*world.crate()[:-1], str(world.cwd / "unit.rs")]

    def leave() -> None:
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()

    world.same_as_plain(*line, preexec_fn=leave)


@pytest.mark.parametrize("length", [300, 3000, 5000])
def test_very_long_paths_are_served_or_left_to_the_compiler(world: World, length: int) -> None:
    """Beyond PATH_MAX there is no name for where one stands."""
    (world.cwd / "unit.rs").write_text("pub fn f() {}\n")
    depth = length // 200

    def descend() -> None:
        for _ in range(depth):
            if not os.path.isdir("d" * 199):
                os.mkdir("d" * 199)
            os.chdir("d" * 199)

    line = [rustc(), "--crate-type=lib", "--emit=metadata", "-o", str(world.out / "libunit.rmeta"), str(world.cwd / "unit.rs")]
    assert world.same_as_plain(*line, preexec_fn=descend).returncode in (0, 1)


# --- wrappers ---


def test_wrappers_around_wrappers_end_at_the_compiler(world: World, tmp_path: Path) -> None:
    """RUSTC_WRAPPER and RUSTC_WORKSPACE_WRAPPER, a link in PATH, both: never a loop, never an error."""
    line = world.crate()
    plain = world.run_plain(*line)
    links = world.directory / "links"
    links.mkdir()
    (links / "rustc").symlink_to(world.client)
    os.link(world.client, links / "hard")
    (links / "sccache-py").symlink_to(world.client)
    env = {**world.env, "PATH": f"{links}:{world.env['PATH']}"}
    client = str(world.client)
    for argv in (
        [client, client, *line],
        [client, client, client, *line],
        [client, str(links / "sccache-py"), *line],
        ["rustc", *line[1:]],
        [str(links / "rustc"), *line[1:]],
        [client, "rustc", *line[1:]],
        [client, str(links / "rustc"), *line[1:]],
        ["sccache-py", "sccache-py", "rustc", *line[1:]],
    ):
        world.wipe()
        command = [client if argv[0] == client else str(links / Path(argv[0]).name), *argv[1:]]
        assert world.run_plain(*command, env=env) == plain, argv
        assert len(tree(world.out)) == 3


def test_two_copies_in_path_do_not_call_each_other_for_ever(world: World) -> None:
    """A distribution's and one's own, each with a directory of links before /usr/bin."""
    line = world.crate()
    plain = world.run_plain(*line)
    path = []
    for i in range(2):
        directory = world.directory / f"copy{i}"
        directory.mkdir()
        copy = directory / "sccache-py"
        copy.write_bytes(world.client.read_bytes())
        copy.chmod(0o755)
        (directory / "rustc").symlink_to("sccache-py")
        path.append(str(directory))
    env = {**world.env, "PATH": ":".join([*path, world.env["PATH"]])}
    world.wipe()
    assert world.run_plain(f"{path[0]}/rustc", *line[1:], env=env) == plain
    assert len(tree(world.out)) == 3


def test_a_compiler_of_a_wrappers_name_that_is_not_there_says_so(world: World) -> None:
    """127, as a shell."""
    said = world.run("no-such-rustc", "--crate-type=lib", "unit.rs")
    assert said.returncode == 127
    assert b"no-such-rustc" in said.stderr


# --- what stays ---
