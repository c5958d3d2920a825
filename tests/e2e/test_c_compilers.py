"""Compilers under all their names, what stands between us and them, and command lines as real builds write them."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE = "int f(int x) { return x + 1; }\n"

# Runs the compiler, and checks its own memory.
WRAPPER = """
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words)
{
	free(malloc(count));
	words[0] = "gcc";
	execvp("gcc", words);
	return 1;
}
"""

# Writes a note into every object: what it is told by its argument.
PLUGIN = r"""
#include <gcc-plugin.h>
#include <plugin-version.h>
#include <output.h>
int plugin_is_GPL_compatible;
static const char *note = SALT;
static void finish(void *, void *) { fprintf(asm_out_file, "\t.ascii \"%s\"\n", note); }
int plugin_init(struct plugin_name_args *info, struct plugin_gcc_version *version)
{
	if (!plugin_default_version_check(version, &gcc_version))
		return 1;
	for (int i = 0; i < info->argc; i++)
		note = info->argv[i].value;
	register_callback(info->base_name, PLUGIN_FINISH_UNIT, finish, nullptr);
	return 0;
}
"""


@pytest.fixture(autouse=True)
def observed_only(c) -> None:
    if not c.observed:
        pytest.skip("written for compiles that are observed")


def only(c, name: str) -> None:
    if c.name != name:
        pytest.skip(f"{name}'s")


def has(c, program: str) -> bool:
    return shutil.which(program, path=c.world.env["PATH"]) is not None


def answer_of(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout.strip()


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x86_64-linux-gnu-gcc-12", "x86_64-linux-gnu-g++-12", "g++-12", "c++", "c89-gcc", "clang++-14", "aarch64-linux-gnu-gcc"]
)
def test_a_name_with_a_target_and_a_version_is_the_compiler_that_it_says(c, name):
    """A distribution's build calls the compiler by its full name."""
    only(c, "clang" if "clang" in name else "gcc")
    if not has(c, name):
        pytest.skip(f"no {name}")
    c.write("x.c", "int f(int x) { return sizeof 'a' + x; }\n")
    c.compile_twice("-g", "-c", "x.c", "-o", c.object(), rustc=name)


def test_c_and_cxx_of_one_toolchain_are_told_apart(c):
    """g++ compiles x.c as C++, where a character is one byte and not four."""
    c.write("x.c", "unsigned long f(void) { return sizeof 'a'; }\n")
    as_c = c.compile_twice("-c", "x.c", "-o", c.object())
    if not c.is_gcc:
        return  # clang++ warns of it
    as_cxx = c.compile_twice("-c", "x.c", "-o", c.object(), rustc=c.plus)
    assert as_c.file("x.o") != as_cxx.file("x.o")


def test_a_script_that_compiles_something_first_is_cached_by_all_that_it_does(c):
    """Wrappers look at files and variables of their own: what they read is an input like any other."""
    c.write("x.c", ONE)
    c.write("more-flags", "-DA=1\n")
    script = c.write("cc.sh", f'#!/bin/sh\nread -r flags < {c.p}/more-flags\nexec {c.name} $flags -DLEVEL="${{LEVEL:-0}}" "$@"\n')
    script.chmod(0o755)
    args = ("-O1", "-c", "x.c", "-o", c.object())
    c.compile_twice(*args, rustc=str(script))
    c.expect("miss", *args, rustc=str(script), env={"LEVEL": "2"})
    c.write("more-flags", "-O3\n")
    c.expect("miss", *args, rustc=str(script))


def test_a_program_of_any_name_that_is_called_as_a_compiler_is_asked(c):
    """mpicc, or whatever a project calls its wrapper, compiled or a script: sccache and ccache take it."""
    c.write("x.c", ONE)
    c.write(
        "wrapper.c",
        f"""#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{{
    const char *more = getenv("WRAPPER_MORE");
    char *words[100] = {{"{c.name}", more ? (char *)more : "-DA"}};
    for (int i = 1; i <= argc; i++)
        words[i + 1] = argv[i];
    return execvp(words[0], words);
}}
""",
    )
    subprocess.run(["gcc", "wrapper.c", "-o", "compiled"], cwd=c.p, check=True)
    c.write("compile.sh", f'#!/bin/sh\nexec {c.name} "$@"\n').chmod(0o755)
    for number, wrapper in enumerate(("compiled", "compile.sh")):
        args = ("-O1", f"-DN={number}", "-c", "x.c", "-o", c.object())
        how = {"rustc": str(c.p / wrapper)}
        c.compile_twice(*args, **how)
        if wrapper == "compiled":
            c.expect("miss", *args, env={"WRAPPER_MORE": "-O3"}, **how)
    c.expect("pass", "-c", "x.c", rustc="echo")
    assert c.world.counts()["requests_unsupported_compiler"] == 1


def test_a_program_with_a_sanitizer_runs_as_it_does_without_us(c, tmp_path):
    """libasan ends a program in which another library comes before it, as ours does."""
    only(c, "gcc")
    (tmp_path / "wrapper.c").write_text(WRAPPER)
    built = subprocess.run(["gcc", "-fsanitize=address", "wrapper.c", "-o", "my-gcc"], cwd=tmp_path, capture_output=True, check=False)
    library = Path(answer_of("gcc", "-print-file-name=libasan.so"))
    if built.returncode != 0 or not library.is_absolute():
        pytest.skip("gcc without libasan")
    c.write("x.c", ONE)
    args = ("-c", "x.c", "-o", c.object())
    c.compile_twice(*args, rustc=str(tmp_path / "my-gcc"))
    c.compile_twice(*args, env={"LD_PRELOAD": str(library.resolve()), "ASAN_OPTIONS": "detect_leaks=0"})


def test_a_program_of_another_c_library_runs_as_it_does_without_us(c, tmp_path):
    """Our library for glibc is preloaded into all that a compiler starts, and musl's ld.so takes none that wants what musl lacks."""
    only(c, "gcc")
    if not has(c, "musl-gcc"):
        pytest.skip("no musl-gcc")
    (tmp_path / "other.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["musl-gcc", "other.c", "-o", "other"], cwd=tmp_path, check=True)
    script = c.write("cc.sh", f'#!/bin/sh\n{tmp_path}/other || exit 9\nexec gcc "$@"\n')
    script.chmod(0o755)
    c.write("x.c", ONE)
    done = c.world.cached("-c", "x.c", "-o", c.object(), rustc=str(script))
    assert (done.status, done.stderr) == (0, b"")


def test_distcc_between_us_and_the_compiler_passes(c):
    """`sccache-py distcc gcc`: distcc runs its own compile, here or elsewhere."""
    if not has(c, "distcc"):
        pytest.skip("no distcc")
    c.write("x.c", ONE)
    env = {"DISTCC_HOSTS": "localhost", "DISTCC_DIR": str(c.world.root / "distcc")}
    (c.world.root / "distcc").mkdir()
    c.expect("pass", c.name, "-c", "x.c", "-o", c.object(), rustc="distcc", env=env)
    assert c.world.counts()["requests_unsupported_compiler"] == 1


def test_a_launcher_that_is_only_a_script_is_no_compiler(c):
    """`sccache-py time.sh gcc -c x.c`: whatever it is, it runs."""
    c.write("x.c", ONE)
    script = c.write("run.sh", '#!/bin/sh\nexec "$@"\n')
    script.chmod(0o755)
    c.expect("pass", c.name, "-c", "x.c", "-o", c.object(), rustc=str(script))


# -- other languages and what is loaded ------------------------------------------------------------------------------


def test_objective_c_is_cached(c):
    """The same compiler under another language, with a program (cc1obj) and messages of its own."""
    if c.is_gcc and not answer_of("gcc", "-print-prog-name=cc1obj").startswith("/"):
        pytest.skip("no cc1obj")
    c.write("x.m", '#import "a.h"\n#import "a.h"\n@interface Thing\n- (int)half:(int)x;\n@end\n@implementation Thing\n'
                   "- (int)half:(int)x { return x / PARTS; }\n@end\n")  # fmt: skip
    c.write("a.h", "#define PARTS 2\n")
    c.compile_twice("-Wall", "-MMD", "-c", "x.m", "-o", c.object())
    c.write("a.h", "#define PARTS 3\n")
    c.expect("miss", "-Wall", "-MMD", "-c", "x.m", "-o", c.object())
    c.write("y.c", "@interface Other\n@end\n")
    c.compile_twice("-x", "objective-c", "-g", "-c", "y.c", "-o", c.object())
    assert set(c.world.control("stats")["stats"]["languages"]["cache_hits"]) == {"C/C++"}


def test_a_plugin_of_gcc_is_an_input_with_its_arguments(c, tmp_path):
    """It may put anything into the object."""
    only(c, "gcc")
    headers = Path(answer_of("gcc", "-print-file-name=plugin"), "include")
    if not (headers / "gcc-plugin.h").exists():
        pytest.skip("no headers of gcc's for plugins")
    (tmp_path / "p.cc").write_text(PLUGIN)

    def build(salt: str) -> None:
        words = ["g++", "-shared", "-fPIC", "-fno-rtti", f'-DSALT="{salt}"', f"-I{headers}", tmp_path / "p.cc", "-o", c.p / "p.so"]
        subprocess.run(words, check=True, timeout=120)

    build("one")
    c.write("x.c", ONE)
    args = ("-fplugin=./p.so", "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*args)
    assert b"one" in first.file("x.o")
    told = c.compile_twice(args[0], "-fplugin-arg-p-note=told", *args[1:])
    assert b"told" in told.file("x.o")
    build("two")
    assert b"two" in c.expect("miss", *args).file("x.o")


# -- command lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "define",
    ['-DA="two words"', '-DA="it\'s"', '-DA="a\\\\b"', '-DA="#$%&"', "-DA(x)=#x", '-DA="\N{LATIN SMALL LETTER E WITH ACUTE}"', "-DA="],
)
def test_macros_with_all_kinds_of_characters_come_through(c, define):
    """What make and cmake quote with such care has no shell left to go through."""
    empty, call = define == "-DA=", "(x)" in define
    c.write("x.c", f"const char *f(void) {{ return {'A(1 2)' if call else 'A' + ' 0' * empty}; }}\n")
    c.compile_twice(define, "-DB='x'", "-D", "C=1 2", "-UD", "-c", "x.c", "-o", c.object())
    c.expect("miss", define, "-DB='x'", "-D", "C=1  2", "-UD", "-c", "x.c", "-o", c.object())


def test_macros_handed_to_the_preprocessor_are_macros(c):
    """-Wp,-D_FORTIFY_SOURCE=2, as Fedora builds everything, names no file: another object hits."""
    c.write("x.c", "const char *f(void) { return A; }\n")
    c.expect("miss", "-Wp,-UB,-DA=__FILE__", "-Wp,-U_FORTIFY_SOURCE", "-O2", "-c", "x.c", "-o", c.object())
    c.expect("hit", "-Wp,-UB,-DA=__FILE__", "-Wp,-U_FORTIFY_SOURCE", "-O2", "-c", "x.c", "-o", c.object("y.o"))
    c.expect("miss", "-Wp,-UB,-DA=__BASE_FILE__", "-Wp,-U_FORTIFY_SOURCE", "-O2", "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gcc", ("-coverage", "-frandom-seed=1")),
        ("gcc", ("--define-macro=A", "--include-directory", ".", "--pedantic", "--all-warnings", "-Qn", "-static-libasan")),
        ("gcc", ("--specs=/dev/null", "--optimize=2", "--debug=1", "--warn-all", "--std", "c99", "--write-dependencies")),
        ("clang", ("-coverage",)),
        ("clang", ("--optimize=2", "--debug", "--all-warnings", "--language", "c", "--include-directory-after=.", "--signed-char")),
        ("clang", ("-fsanitize=undefined", "-shared-libsan", "--system-header-prefix=boost/", "--ansi", "-Qn")),
        ("clang", ("-nostdlibinc", "-nobuiltininc")),
        ("clang", ("-integrated-as", "--start-no-unused-arguments", "-static-libgcc", "--end-no-unused-arguments", "-nopie")),
    ],
    ids=str,
)
def test_options_of_few_builds_are_known(c, name, options):
    """Each was refused as unknown, which a build that says it has in all its compiles."""
    only(c, name)
    c.write("x.c", ONE)
    c.compile_twice(*options, "-c", "x.c", "-o", c.object())


def test_remarks_of_the_optimiser_come_back(c):
    """They say on stderr what was inlined, and name the source as it was called."""
    only(c, "clang")
    c.write("x.c", "static int f(int n) { return n + 1; }\nint g(int n) { return f(n); }\n")
    remarks = c.compile_twice("-O2", "-Rpass=inline", "-c", "x.c", "-o", c.object())
    assert b"remark: " in remarks.stderr


def test_a_compile_that_fails_is_a_failure_and_no_miss(c):
    """The hit rate tells how good the cache is, not how often somebody mistyped; sccache and ccache count so."""
    c.write("x.c", "int f(void) { return }\n")
    c.expect("fail", "-c", "x.c", "-o", c.object())
    counts = c.world.counts()
    assert (counts["compile_fails"], counts["compilations"], counts["cache_misses"]) == (1, 1, 0)


def test_an_output_directory_that_is_not_there_is_the_compilers_to_complain_of(c):
    """Not made by us, and the same compile works as soon as somebody made it."""
    c.write("x.c", ONE)
    args = ("-c", "x.c", "-o", f"{c.o}/sub/dir/x.o")
    c.expect("fail", *args)
    c.expect("miss", "-c", "x.c", "-o", c.object())
    done = c.expect("fail", *args)  # known now, and still not made
    assert done.status != 0
    assert not (c.o / "sub").exists()


def test_an_object_that_cannot_be_written_leaves_what_the_compiler_leaves(c):
    """A directory of that name: the error is the compiler's, and clang then leaves no depfile."""
    c.write("x.c", ONE)
    args = (c.name, "-MD", "-MF", "place/x.d", "-c", "x.c", "-o", "place/x.o")

    def compile_(*launcher: str, blocked: bool):
        shutil.rmtree(c.p / "place", ignore_errors=True)
        (c.p / "place" / "x.o" if blocked else c.p / "place").mkdir(parents=True)
        ran = c.world.run([*launcher, *args], c.p, c.world.server_env)
        return ran.returncode, ran.stderr, sorted(p.name for p in (c.p / "place").iterdir())

    plain = compile_(blocked=True)
    assert compile_(str(c.world.client), blocked=False)[0] == 0
    assert c.world.counts()["cache_misses"] == 1
    assert compile_(str(c.world.client), blocked=True) == plain
    assert plain[0] != 0


@pytest.mark.parametrize("words", [("-c",), ("-S",), ("-MD", "-c")], ids=" ".join)
@pytest.mark.parametrize("link", ["x.o", "x.d"])
def test_a_link_where_an_output_goes_is_the_compilers_to_replace_or_to_follow(c, words, link):
    """Some replace it and some write to where it leads: another build's object must not change under it."""
    c.write("x.c", ONE)
    args = (*words, "../x.c", "-o", "x.o")

    def compile_(*launcher: str, linked: bool):
        shutil.rmtree(c.p / "place", ignore_errors=True)
        c.write("place/other", "another build's")
        if linked:
            (c.p / "place" / link).symlink_to("other")
        ran = c.world.run([*launcher, c.name, *args], c.p / "place", c.world.server_env)
        return ran.returncode, ran.stderr, {p.name: (p.is_symlink(), p.read_bytes()) for p in (c.p / "place").iterdir()}

    client = str(c.world.client)
    plain = compile_(linked=True)
    compile_(client, linked=False)
    assert c.world.counts()["cache_misses"] == 1
    assert compile_(client, linked=True) == plain  # it is known by now
    assert compile_(client, linked=False) == compile_(linked=False)


def test_an_empty_source_is_a_source(c):
    """How makefiles ask whether an option is known (Linux's cc-option): /dev/null, and an object that nobody wants."""
    done = c.compile_twice("-Werror", "-O2", "-c", "-x", "c", "/dev/null", "-o", c.object("tmp.1"))
    assert c.expect("hit", "-Werror", "-O2", "-c", "-x", "c", "/dev/null", "-o", c.object("tmp.2")).file("tmp.2") == done.file("tmp.1")
    c.expect("fail", "-Werror", "-fno-such-option", "-c", "-x", "c", "/dev/null", "-o", c.object("tmp.2"))
    c.write("h.h", "#define A 1\n")
    c.compile_twice("-include", "h.h", "-g3", "-MD", "-c", "-x", "c", "/dev/null", "-o", c.object())
    c.write("h.h", "#define A 2\n")
    c.expect("miss", "-include", "h.h", "-g3", "-MD", "-c", "-x", "c", "/dev/null", "-o", c.object())
    c.compile_twice("-c", "-x", "assembler-with-cpp", "/dev/null", "-o", c.object())


@pytest.mark.parametrize("word", ["-Wa,-L,-a=asked", "-Wa,-as=asked", "-Wa,--MD,asked", "-Wa,-MD,asked"])
@pytest.mark.parametrize("c", ["gcc-observed"], indirect=True)
def test_what_the_assembler_is_asked_for_comes_back(c, word):
    """Listings, wherever in the word they are asked for, and the assembler's own list of files."""
    c.write("x.s", ".globl f\nf: ret\n")
    args = (word, "-c", "x.s", "-o", c.object())
    c.expect("miss", *args)
    plain = (c.p / "asked").read_bytes()
    (c.p / "asked").unlink()
    c.expect("hit", *args)
    assert (c.p / "asked").read_bytes() == plain


def test_an_assembler_source_is_known_by_all_it_takes_in(c):
    """.S goes through the preprocessor and the assembler, and both read files."""
    c.write("inc/macros.inc", ".macro leave\n ret\n.endm\n")
    c.write("inc/table.bin", "12345678")
    c.write("h.h", "#define NAME f\n")
    c.write("x.S", '#include "h.h"\n.include "macros.inc"\n.globl NAME\nNAME: leave\n.data\n.incbin "table.bin"\n')
    words = ("-fno-integrated-as",) if not c.is_gcc else ()
    args = (*words, "-DX=1", "-MD", "-MP", "-Wa,-Iinc", "-Wa,--noexecstack", "-c", "x.S", "-o", c.object())
    c.compile_twice(*args)
    for name, text in (("inc/macros.inc", ".macro leave\n nop\n ret\n.endm\n"), ("inc/table.bin", "87654321"), ("h.h", "#define NAME g\n")):
        c.write(name, text)
        c.compile_twice(*args)


def test_objects_of_link_time_optimisation_make_the_same_program(c):
    """Cached objects are linked, and out of an archive."""
    c.write("a.c", "int half(int);\nint main(int n, char **v) { return half(n); }\n")
    c.write("b.c", "int half(int x) { return x / 2; }\n")
    ar = "gcc-ar" if c.is_gcc else shutil.which("llvm-ar") or shutil.which("llvm-ar-14")
    if ar is None or (not c.is_gcc and not has(c, "ld.lld")):
        pytest.skip("no llvm-ar or no ld.lld")
    link = () if c.is_gcc else ("-fuse-ld=lld",)

    def build(*launcher: str) -> bytes:
        for name in ("a", "b"):
            words = (c.name, "-O2", "-flto", "-frandom-seed=1", "-c", f"{name}.c", "-o", c.object(f"{name}.o"))
            assert c.world.run([*launcher, *words], c.p, c.world.server_env).returncode == 0
        (c.o / "libb.a").unlink(missing_ok=True)
        assert c.world.run([*launcher, str(ar), "rcs", str(c.o / "libb.a"), c.object("b.o")], c.p, c.world.server_env).returncode == 0
        line = (c.name, "-O2", "-flto", *link, "-frandom-seed=1", c.object("a.o"), str(c.o / "libb.a"), "-o", str(c.o / "prog"))
        ran = c.world.run([*launcher, *line], c.p, c.world.server_env)
        assert (ran.returncode, ran.stderr) == (0, b"")
        return (c.o / "prog").read_bytes()

    plain = build()
    for hits in (0, 3 if c.observed else 2):
        assert build(str(c.world.client)) == plain
        counts = c.world.counts()
        assert counts["cache_hits"] == hits
    assert counts["requests_unsupported_compiler"] == 2  # archives


def test_variables_of_ccache_change_nothing(c):
    """A user who comes from there has them in the profile."""
    c.write("x.c", ONE)
    c.expect("miss", "-c", "x.c", "-o", c.object())
    said = {"DISABLE": "1", "PREFIX": "false", "RECACHE": "1", "DIR": "/nowhere", "COMPILERCHECK": "false", "EXTRAFILES": "/no/such"}
    said |= {"SLOPPINESS": "everything", "BASEDIR": "/", "LOGFILE": str(c.o / "log")}
    env = {"UNCACHED_ERR_FD": "9", **{f"CCACHE_{name}": value for name, value in said.items()}}
    c.expect("hit", "-c", "x.c", "-o", c.object(), env=env)
    assert not (c.o / "log").exists()


def test_what_the_driver_says_begins_with_its_name(c):
    """gcc, cc and gcc-12 are one program and share what they make, but not a message of the driver's own."""
    if not c.is_gcc or not c.world.observed:
        pytest.skip("gcc's")
    for name in ("gcc", "cc"):
        (c.p / f"x-{name}").symlink_to(shutil.which("gcc"))
    c.write("x.c", ONE)
    names = [str(c.p / f"x-{name}") for name in ("gcc", "cc")]
    args = ("-c", "x.c", "-o", c.object())
    c.expect("miss", *args, rustc=names[0])
    c.expect("hit", *args, rustc=names[1], asks=True)
    said = [c.expect("miss", *args, "-x", "c++", rustc=name).stderr for name in names]
    assert said[0] != said[1]
    for name in names:
        c.expect("hit", *args, "-x", "c++", rustc=name)


def test_what_a_wrapper_leaves_when_it_is_asked_has_the_callers_mode(c):
    """A log that the whole world may write to: the server's own umask is 0."""
    c.write("x.c", ONE)
    script = c.write("cc.sh", f'#!/bin/sh\necho "$@" >> {c.p}/asked\nexec {c.name} "$@"\n')
    script.chmod(0o755)
    c.world.cached("-c", "x.c", "-o", c.object(), rustc=str(script), umask=0o027)
    assert stat.S_IMODE((c.p / "asked").stat().st_mode) == 0o640


_REDIRECTS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
int open(const char *path, int flags, int mode)
{
    int (*next)(const char *, int, int) = (int (*)(const char *, int, int))dlsym(RTLD_NEXT, "open");
    return next(strstr(path, "asked.h") ? "given.h" : path, flags, mode);
}
"""


def test_what_is_preloaded_to_open_other_files_is_left_to_the_compiler(c):
    """fakechroot: the record would tell of files that nobody read."""
    c.write("redirects.c", _REDIRECTS)
    subprocess.run(["gcc", "-shared", "-fPIC", "redirects.c", "-o", "redirects.so"], cwd=c.p, check=True, timeout=60)
    c.write("asked.h", "int asked;\n")
    c.write("given.h", "int given;\n")
    c.write("x.c", '#include "asked.h"\n')
    args = ("-c", "x.c", "-o", c.object())
    c.compile_twice(*args)
    c.world.control("zero")
    for env in ({"LD_PRELOAD": f"{c.p}/redirects.so"}, {"LD_PRELOAD": "redirects.so", "LD_LIBRARY_PATH": str(c.p)}):
        c.world.control("zero")
        c.refused("variable LD_PRELOAD", *args, env=env)


@pytest.mark.parametrize("env", [{"LD_DEBUG": "statistics"}, {"LD_SHOW_AUXV": "1"}, {"LD_AUDIT": "/none.so"}])
def test_what_ld_so_is_told_to_say_is_not_kept(c, env):
    """Whoever looks for a library for a while (`LD_DEBUG=libs make`) would find those words in each later build."""
    c.write("x.c", ONE)
    args = ("-c", "x.c", "-o", c.object())
    said = c.world.run([str(c.world.client), c.name, *args], None, {**env, **c.world.server_env})
    assert said.returncode == 0
    assert said.stdout + said.stderr != b""
    c.world.control("zero")
    c.compile_twice(*args)


def test_another_session_of_fakeroot_hits(c):
    """Each asks for its own number; Debian's packages are built in such sessions."""
    if shutil.which("fakeroot") is None:
        pytest.skip("no fakeroot")
    c.write("x.c", ONE)
    for verdict in ("miss", "hit"):
        before = c.world.counts() if c.world.pids else {}
        command = ["fakeroot", str(c.world.client), c.name, "-c", "x.c", "-o", c.object()]
        done = c.world.run(command, None, c.world.server_env)
        assert (done.returncode, done.stderr) == (0, b"")
        assert c.world.verdict_since(before) == verdict
