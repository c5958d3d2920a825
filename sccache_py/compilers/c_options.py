"""Options of gcc and clang, as far as they mean something to a cache.

Sources: gcc 12's manual, "Invoking GCC", and `gcc/common.opt`, `c-family/c.opt`; clang 14's "Clang command line argument reference".
Tables are sorted (a test holds us to it): an option is found by its exact name, else by the longest entry that it begins with.
What a compiler may say in a family (`-W…`, `-f…`, `-m…`, `-O…`) is keyed word for word; entries below are the members that do
more than that.  What no entry begins is refused, and counted by its name: it may mean that the next word is its value.

Longer than 500 lines because it is one table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Takes(enum.Enum):
    """Where an option's value is."""

    NOTHING = enum.auto()  # -c: this word exactly
    NEXT = enum.auto()  # -aux-info FILE
    JOINED = enum.auto()  # -O2: the rest of the word, maybe nothing
    EITHER = enum.auto()  # -DX, -D X


class Does(enum.Enum):
    """What an option does to us, not what it does to the compiler."""

    KEEP = enum.auto()
    BESIDE = enum.auto()  # leaves a file beside the output that is called like it, with another suffix
    COLOR = enum.auto()
    COMPILE = enum.auto()
    DEBUG = enum.auto()  # debug information, which names the cwd
    DEBUG_DIRECTORY = enum.auto()  # what debug information names in place of the cwd
    DEP_FILE = enum.auto()
    DEP_TARGET = enum.auto()
    DEP_WRITE = enum.auto()
    IMPLICIT_MODULES = enum.auto()  # fills a cache of its own, unless -fno-implicit-modules
    LANGUAGE = enum.auto()
    MACHINE = enum.auto()  # may be "native"
    NO_DEBUG = enum.auto()  # takes back what was said before
    NOT_COMPILING = enum.auto()
    OUTPUT = enum.auto()
    PREFIX_MAP = enum.auto()
    PREPROCESS = enum.auto()  # refused, unless it is only for rules
    PREPROCESSOR = enum.auto()  # -Wp,
    RECORDS = enum.auto()  # writes the command line into the output
    REFUSE = enum.auto()  # counted by its own name
    RULES = enum.auto()  # says what is read, and compiles nothing
    SEARCHES_PROGRAMS = enum.auto()  # other programs may run than those that the compiler's identity stands for
    SHOWS_CWD = enum.auto()  # the output names the cwd
    SHOWS_NAMES = enum.auto()  # the output names the cwd or the output, or further files are written beside it
    SPLITS_DEBUG = enum.auto()  # debug information in a file beside the output, whose name is in the output
    SYNTAX_ONLY = enum.auto()
    TARGETS = enum.auto()  # for what machine: programs of another name are looked for along PATH
    UNLISTED = enum.auto()  # reads or writes what only observation knows, or makes a text mean another thing
    WRITES = enum.auto()  # its value names a further output; which may name anything


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    takes: Takes
    does: Does = Does.KEEP
    refused: str = "(?!)"  # an expression for the values with which it is refused all the same
    shows: str = "(?!)"  # and with which it does SHOWS_NAMES
    beside: str = ""  # suffix of the file that it leaves


# What a linker is told that is of this run alone, or fills a cache of its own (lld's, in files of modes that no umask makes).
_RUN = r"(.*,)?--?(stats\b|time-trace|thinlto-cache-|plugin-opt[=,]cache-dir)"

_NO, _NEXT, _JOINED, _EITHER = Takes.NOTHING, Takes.NEXT, Takes.JOINED, Takes.EITHER

COMMON_OPTIONS = (
    Option("-###", _NO, Does.NOT_COMPILING),
    Option("--all-warnings", _NO),
    Option("--ansi", _NO),
    Option("--assemble", _NO),
    Option("--compile", _NO),
    Option("--coverage", _NO, Does.SHOWS_NAMES),
    Option("--debug", _NO),
    Option("--define-macro", _NEXT),
    Option("--define-macro=", _JOINED),
    Option("--dependencies", _NO),
    Option("--embed-dir=", _JOINED),
    Option("--extra-warnings", _NO),
    Option("--help", _JOINED, Does.NOT_COMPILING),
    Option("--imacros", _NEXT),
    Option("--imacros=", _JOINED),
    Option("--include", _NEXT),
    Option("--include-directory", _NEXT),
    Option("--include-directory-after", _NEXT),
    Option("--include-directory-after=", _JOINED),
    Option("--include-directory=", _JOINED),
    Option("--include=", _JOINED),
    Option("--language", _NEXT),
    Option("--language=", _JOINED),
    Option("--no-warnings", _NO),
    Option("--optimize", _NO),
    Option("--optimize=", _JOINED),
    Option("--output", _NEXT),
    Option("--output=", _JOINED),
    Option("--param", _NEXT),
    Option("--param=", _JOINED),
    Option("--pedantic", _NO),
    Option("--pedantic-errors", _NO),
    Option("--pipe", _NO),
    Option("--prefix", _NEXT),
    Option("--prefix=", _JOINED),
    Option("--preprocess", _NO),
    Option("--print-", _JOINED, Does.NOT_COMPILING),
    Option("--print-missing-file-dependencies", _NO),
    Option("--profile", _NO),
    Option("--save-temps", _JOINED, Does.REFUSE),
    Option("--shared", _NO),
    Option("--signed-char", _NO),
    Option("--specs=", _JOINED),
    Option("--static", _NO),
    Option("--std", _NEXT),
    Option("--std=", _JOINED),
    Option("--sysroot", _NEXT),
    Option("--sysroot=", _JOINED),
    Option("--target-help", _NO, Does.NOT_COMPILING),
    Option("--trace-includes", _NO),
    Option("--trigraphs", _NO),
    Option("--undefine-macro", _NEXT),
    Option("--undefine-macro=", _JOINED),
    Option("--unsigned-char", _NO),
    Option("--user-dependencies", _NO),
    Option("--verbose", _NO),
    Option("--version", _NO, Does.NOT_COMPILING),
    Option("--warn-", _JOINED),
    Option("--write-dependencies", _NO),
    Option("--write-user-dependencies", _NO),
    Option("-A", _EITHER),
    Option("-B", _EITHER, Does.SEARCHES_PROGRAMS),
    Option("-C", _NO),
    Option("-CC", _NO),
    Option("-D", _EITHER),
    Option("-E", _NO, Does.PREPROCESS),
    Option("-EB", _NO),
    Option("-EL", _NO),
    Option("-F", _EITHER, Does.UNLISTED),  # frameworks have names of their own for their headers
    Option("-G", _EITHER),
    Option("-H", _NO),
    Option("-I", _EITHER),
    Option("-L", _EITHER),
    Option("-M", _NO, Does.RULES),
    Option("-MD", _NO, Does.DEP_WRITE),
    Option("-MF", _EITHER, Does.DEP_FILE),
    Option("-MG", _NO, Does.UNLISTED),
    Option("-MM", _NO, Does.RULES),
    Option("-MMD", _NO, Does.DEP_WRITE),
    Option("-MP", _NO),
    Option("-MQ", _EITHER, Does.DEP_TARGET),
    Option("-MT", _EITHER, Does.DEP_TARGET),
    Option("-O", _JOINED),
    Option("-P", _NO),
    Option("-Q", _NO, Does.REFUSE),  # prints times
    Option("-Qn", _NO),
    Option("-Qy", _NO),
    Option("-S", _NO, Does.COMPILE),
    Option("-T", _EITHER),
    Option("-U", _EITHER),
    Option("-V", _EITHER, Does.NOT_COMPILING),
    Option("-W", _JOINED),
    # Listings have dates and file names, lists of files names, --debug-prefix-map makes part of the cwd's path, @FILE may say all that;
    # as takes one dash for two, and half an option for a whole one.  --statistics says how long it took.
    Option("-Wa,", _JOINED, Does.UNLISTED, "(.*,)?--?stat", "(.*,)?(-a|--?MD|--?deb|@)"),
    Option("-Wa,--noexecstack", _NO),
    Option("-Wl,", _JOINED, Does.KEEP, _RUN),
    Option("-Wp,", _JOINED, Does.PREPROCESSOR),
    Option("-Xassembler", _NEXT, Does.SHOWS_NAMES),
    Option("-Xlinker", _NEXT, Does.KEEP, _RUN),
    Option("-Xpreprocessor", _NEXT, Does.SHOWS_NAMES),
    Option("-ansi", _NO),
    Option("-c", _NO, Does.COMPILE),
    Option("-coverage", _NO, Does.SHOWS_NAMES),
    Option("-d", _JOINED, Does.SHOWS_NAMES),  # dumps
    Option("-dumpmachine", _NO, Does.NOT_COMPILING),
    Option("-dumpspecs", _NO, Does.NOT_COMPILING),
    Option("-dumpversion", _NO, Does.NOT_COMPILING),
    Option("-e", _EITHER),
    Option("-f", _JOINED),
    Option("-fauto-profile", _JOINED, Does.SHOWS_NAMES),
    Option("-fbranch-probabilities", _NO, Does.SHOWS_NAMES),
    Option("-fcoverage-prefix-map=", _JOINED, Does.PREFIX_MAP),
    Option("-fdebug-prefix-map=", _JOINED, Does.PREFIX_MAP),
    Option("-fdeps-", _JOINED, Does.UNLISTED),
    Option("-fdiagnostics-add-output", _JOINED, Does.UNLISTED),
    Option("-fdiagnostics-color", _NO, Does.COLOR),
    Option("-fdiagnostics-color=", _JOINED, Does.COLOR),
    Option("-fdiagnostics-set-output", _JOINED, Does.UNLISTED),
    Option("-fdirectives-only", _NO, Does.UNLISTED),
    Option("-fexec-charset", _JOINED, Does.UNLISTED),
    Option("-ffile-prefix-map=", _JOINED, Does.PREFIX_MAP),
    Option("-finput-charset", _JOINED, Does.UNLISTED),  # what is looked for cannot be read off the text
    Option("-flto", _JOINED, Does.SHOWS_NAMES),  # the object is compressed: nobody can search it for paths
    Option("-fmacro-prefix-map=", _JOINED, Does.PREFIX_MAP),
    Option("-fmodule", _JOINED, Does.UNLISTED),
    Option("-fno-diagnostics-color", _NO, Does.COLOR),
    Option("-foffload", _JOINED, Does.UNLISTED),  # several compiles in one
    Option("-fopenmp-targets", _JOINED, Does.UNLISTED),  # several compiles in one
    Option("-fpch", _JOINED, Does.UNLISTED),
    Option("-fplugin", _JOINED, Does.SHOWS_NAMES),  # read like any file; what it does with names nobody knows
    Option("-fpreprocessed", _NO, Does.UNLISTED),
    Option("-fprofile", _JOINED, Does.SHOWS_NAMES),
    Option("-fprofile-prefix-map=", _JOINED, Does.PREFIX_MAP),
    Option("-frandom-seed", _JOINED),
    Option("-fsave-optimization-record", _JOINED, Does.SHOWS_NAMES),
    Option("-fstack-usage", _NO, Does.BESIDE, beside=".su"),
    Option("-fsyntax-only", _NO, Does.SYNTAX_ONLY),
    Option("-ftest-coverage", _NO, Does.SHOWS_NAMES),
    Option("-ftime-report", _JOINED, Does.REFUSE),
    Option("-fverbose-asm", _NO, Does.RECORDS),
    Option("-fwide-exec-charset", _JOINED, Does.UNLISTED),
    Option("-fworking-directory", _NO, Does.SHOWS_CWD),
    Option("-g", _JOINED, Does.DEBUG),
    Option("-g0", _NO, Does.NO_DEBUG),
    Option("-ggdb0", _NO, Does.NO_DEBUG),
    Option("-gsplit-dwarf", _JOINED, Does.SPLITS_DEBUG),
    Option("-gz", _JOINED),  # what comes out compressed is pinned (elf.hides_text)
    Option("-idirafter", _EITHER),
    Option("-imacros", _EITHER),
    Option("-imultilib", _EITHER),
    Option("-include", _EITHER),
    Option("-iprefix", _EITHER),
    Option("-iquote", _EITHER),
    Option("-isysroot", _EITHER),
    Option("-isystem", _EITHER),
    Option("-iwithprefix", _EITHER),
    Option("-iwithprefixbefore", _EITHER),
    Option("-l", _EITHER),
    Option("-m", _JOINED),
    Option("-march=", _JOINED, Does.MACHINE),
    Option("-mcpu=", _JOINED, Does.MACHINE),
    Option("-mtune=", _JOINED, Does.MACHINE),
    Option("-no-canonical-prefixes", _NO),
    Option("-no-pie", _NO),
    Option("-nodefaultlibs", _NO),
    Option("-nolibc", _NO),
    Option("-nostartfiles", _NO),
    Option("-nostdinc", _NO),
    Option("-nostdinc++", _NO),
    Option("-nostdlib", _NO),
    Option("-nostdlib++", _NO),
    Option("-o", _EITHER, Does.OUTPUT),
    Option("-p", _NO),
    Option("-pedantic", _NO),
    Option("-pedantic-errors", _NO),
    Option("-pg", _NO),
    Option("-pie", _NO),
    Option("-pipe", _NO),  # as says {standard input} then: in its messages, and in debug information of its own
    Option("-print-", _JOINED, Does.NOT_COMPILING),
    Option("-pthread", _NO),
    Option("-r", _NO),
    Option("-rdynamic", _NO),
    Option("-remap", _NO, Does.UNLISTED),  # header.gcc in each directory says which file has which name
    Option("-s", _NO),
    Option("-save-temps", _JOINED, Does.REFUSE),
    Option("-shared", _NO),
    Option("-shared-libgcc", _NO),
    Option("-specs=", _JOINED, Does.SEARCHES_PROGRAMS),
    Option("-static", _NO),
    Option("-static-libgcc", _NO),
    Option("-static-libstdc++", _NO),
    Option("-static-pie", _NO),
    Option("-std=", _JOINED),
    Option("-time", _JOINED, Does.REFUSE),
    Option("-traditional", _NO, Does.UNLISTED),
    Option("-traditional-cpp", _NO, Does.UNLISTED),
    Option("-trigraphs", _NO),
    Option("-u", _EITHER),
    Option("-undef", _NO),
    Option("-v", _NO, Does.REFUSE),  # prints names of temporary files
    Option("-w", _NO),
    Option("-x", _EITHER, Does.LANGUAGE),
    Option("-z", _EITHER),
)

GCC_OPTIONS = (
    Option("--debug=", _JOINED),  # to clang it is -g whatever it says
    Option("--specs", _NEXT),
    Option("-aux-info", _NEXT, Does.WRITES),
    Option("-dumpbase", _NEXT, Does.REFUSE),
    Option("-dumpbase-ext", _NEXT, Does.REFUSE),
    Option("-dumpdir", _NEXT, Does.REFUSE),
    Option("-dumpfullversion", _NO, Does.NOT_COMPILING),
    Option("-fada-spec-parent=", _JOINED, Does.REFUSE),
    Option("-fcallgraph-info", _JOINED, Does.SHOWS_NAMES),
    Option("-fcompare-debug", _JOINED, Does.REFUSE),
    Option("-fcondition-coverage", _NO, Does.SHOWS_NAMES),  # from gcc 14 on: names the .gcda, with no other option of coverage, too
    Option("-fdiagnostics-format=", _JOINED, Does.SHOWS_NAMES),  # from gcc 13 on into a file
    Option("-fdiagnostics-urls", _JOINED, Does.KEEP),
    Option("-fdump", _JOINED, Does.SHOWS_NAMES),
    Option("-fmem-report", _JOINED, Does.REFUSE),
    Option("-fmodule-mapper=", _JOINED, Does.SHOWS_NAMES, "[<=|]|[^:]*:"),  # a file; else a program, over a socket or a pipe
    Option("-fmodules", _NO, Does.SHOWS_NAMES),  # from gcc 15 on, the same as:
    Option("-fmodules-ts", _NO, Does.SHOWS_NAMES),  # reads modules from gcm.cache; one that it writes there names the cwd
    Option("-fopt-info", _JOINED, Does.SHOWS_NAMES, "[^=]*=(?!(stderr|stdout)?\\Z)"),  # it appends to that file, as others do
    Option("-fpath-coverage", _JOINED, Does.SHOWS_NAMES),  # from gcc 15 on, like -fcondition-coverage
    Option("-frecord-gcc-switches", _NO, Does.RECORDS),
    Option("-frepo", _NO, Does.REFUSE),  # until gcc 9; what a link asked for stands in a file beside the object
    Option("-fsanitize-coverage", _JOINED, Does.UNLISTED),
    Option("-gen-decls", _NO, Does.REFUSE),  # no -g; declarations of Objective-C, in a file beside the object
    Option("-no-integrated-cpp", _NO),
    Option("-pass-exit-codes", _NO),
    Option("-specs", _NEXT, Does.SEARCHES_PROGRAMS),
    Option("-static-libasan", _NO),
    Option("-static-liblsan", _NO),
    Option("-static-libtsan", _NO),
    Option("-static-libubsan", _NO),
    Option("-symbolic", _NO),
    Option("-wrapper", _NEXT, Does.REFUSE),
)

CLANG_OPTIONS = (
    Option("--analyze", _JOINED, Does.REFUSE),
    Option("--config", _EITHER, Does.SHOWS_NAMES),
    Option("--driver-mode=", _JOINED, Does.UNLISTED, r"(?!(cpp|g\+\+|gcc)\Z)"),  # cl reads words, and response files, otherwise
    Option("--end-no-unused-arguments", _NO),
    Option("--gcc-install-dir=", _JOINED, Does.SEARCHES_PROGRAMS),
    Option("--gcc-toolchain=", _JOINED, Does.SEARCHES_PROGRAMS),
    Option("--gcc-triple=", _JOINED, Does.SEARCHES_PROGRAMS),
    Option("--ld-path=", _JOINED),
    Option("--no-default-config", _NO),
    Option("--no-system-header-prefix=", _JOINED),
    Option("--precompile", _NO, Does.COMPILE),
    Option("--rtlib=", _JOINED),
    Option("--serialize-diagnostics", _NEXT, Does.WRITES),
    Option("--start-no-unused-arguments", _NO),
    Option("--system-header-prefix=", _JOINED),
    Option("--target=", _JOINED, Does.TARGETS),
    Option("--unwindlib=", _JOINED),
    Option("-MJ", _EITHER, Does.REFUSE),  # a piece of a compilation database
    Option("-MV", _NO, Does.SHOWS_NAMES),  # a depfile in NMake's syntax
    Option("-Qunused-arguments", _NO),
    Option("-R", _JOINED),  # what the optimiser says of itself is on stderr
    Option("-Xanalyzer", _NEXT),
    Option("-Xarch_", _JOINED, Does.REFUSE),
    Option("-Xclang", _NEXT, Does.SHOWS_NAMES),
    Option("-arch", _NEXT, Does.REFUSE),
    Option("-canonical-prefixes", _NO),
    Option("-cxx-isystem", _EITHER),
    Option("-emit-", _JOINED, Does.REFUSE),  # no -e of the linker's
    Option("-emit-llvm", _NO, Does.SHOWS_NAMES),
    Option("-extract-api", _JOINED, Does.REFUSE),
    Option("-fapinotes", _JOINED, Does.UNLISTED),
    Option("-fbasic-block-sections=", _JOINED, Does.UNLISTED),
    Option("-fbuiltin-module-map", _NO, Does.UNLISTED),
    Option("-fcolor-diagnostics", _NO, Does.COLOR),
    Option("-fcoverage-compilation-dir=", _JOINED),
    Option("-fcoverage-mapping", _NO, Does.SHOWS_NAMES),
    Option("-fcrash-diagnostics-dir", _JOINED),
    Option("-fcs-profile", _JOINED, Does.SHOWS_NAMES),
    Option("-fdebug-compilation-dir", _NEXT, Does.DEBUG_DIRECTORY),
    Option("-fdebug-compilation-dir=", _JOINED, Does.DEBUG_DIRECTORY),
    Option("-fdepfile-entry=", _JOINED, Does.REFUSE),
    Option("-fdiagnostics-absolute-paths", _NO, Does.SHOWS_CWD),
    Option("-fdiagnostics-format=", _JOINED, shows="(?i:sarif)"),  # names each file as the kernel would, with neither links nor dots
    Option("-fembed-bitcode", _JOINED, Does.SHOWS_NAMES),
    Option("-ffile-compilation-dir=", _JOINED, Does.DEBUG_DIRECTORY),
    Option("-fimplicit-module", _JOINED, Does.UNLISTED),
    Option("-fmemory-profile", _JOINED, Does.SHOWS_NAMES),
    Option("-fmodule-map-file=", _JOINED),
    Option("-fmodule-output", _NO, Does.SHOWS_NAMES),
    Option("-fmodule-output=", _JOINED, Does.WRITES),
    Option("-fmodules", _NO, Does.IMPLICIT_MODULES),
    Option("-fno-color-diagnostics", _NO, Does.COLOR),
    Option("-fno-integrated-as", _NO, Does.SEARCHES_PROGRAMS),
    Option("-fopenmp", _JOINED, Does.UNLISTED),  # what is for another device is called after a source's inode, or that of what #line names
    Option("-fopenmp-simd", _NO),
    Option("-foptimization-record-file=", _JOINED, Does.WRITES),
    Option("-foptimization-record-passes=", _JOINED, Does.SHOWS_NAMES),  # says -fsave-optimization-record, too
    Option("-fpass-plugin", _JOINED, Does.UNLISTED),
    Option("-fprebuilt-", _JOINED, Does.UNLISTED),
    Option("-fproc-stat-report", _JOINED, Does.REFUSE),
    Option("-frandomize-layout-seed", _JOINED, Does.UNLISTED),
    Option("-frecord-command-line", _NO, Does.RECORDS),
    Option("-frecord-gcc-switches", _NO, Does.RECORDS),
    Option("-fsanitize", _JOINED, Does.UNLISTED),  # with ignore lists, some of which are the compiler's own
    Option("-fsave-main-file", _NO),
    Option("-fthinlto-index=", _JOINED, Does.SHOWS_NAMES),
    Option("-ftime-trace", _JOINED, Does.REFUSE),  # a profile of this very run
    Option("-fxray", _JOINED, Does.UNLISTED),
    Option("-gcc-toolchain", _NEXT, Does.SEARCHES_PROGRAMS),
    Option("-grecord-command-line", _NO, Does.RECORDS),
    Option("-grecord-gcc-switches", _NO, Does.RECORDS),
    Option("-ibuiltininc", _NO),
    Option("-iframework", _EITHER, Does.UNLISTED),
    Option("-include-pch", _NEXT, Does.UNLISTED),
    Option("-index-store-path", _NEXT, Does.REFUSE),
    Option("-integrated-as", _NO),
    Option("-isystem-after", _EITHER),
    Option("-ivfsoverlay", _EITHER, Does.UNLISTED),
    Option("-mllvm", _NEXT, Does.SHOWS_NAMES),
    Option("-module-file-info", _NO, Does.NOT_COMPILING),
    Option("-no-integrated-as", _NO, Does.SEARCHES_PROGRAMS),
    Option("-nobuiltininc", _NO),
    Option("-nopie", _NO),
    Option("-nostdlibinc", _NO),
    Option("-object-file-name", _JOINED, Does.REFUSE),  # no -o, and in debug information
    Option("-resource-dir", _NEXT),
    Option("-resource-dir=", _JOINED),
    Option("-rpath", _NEXT),
    Option("-rtlib=", _JOINED),
    Option("-serialize-diagnostics", _NEXT, Does.WRITES),
    Option("-shared-libsan", _NO),
    Option("-static-libsan", _NO),
    Option("-static-openmp", _NO),
    Option("-stdlib++-isystem", _EITHER),
    Option("-stdlib=", _JOINED),
    Option("-target", _NEXT, Does.TARGETS),
    Option("-unwindlib=", _JOINED),
    Option("-working-directory", _JOINED, Does.REFUSE),  # every relative path means something else
)

# By extension, as gcc's manual, "Overall Options", and clang's `Types.def` have them; and what -x may say.
EXTENSIONS = {
    ".C": "c++",
    ".CPP": "c++",
    ".H": "c++-header",
    ".M": "objective-c++",
    ".S": "assembler-with-cpp",
    ".bc": "ir",
    ".c": "c",
    ".c++": "c++",
    ".cc": "c++",
    ".cp": "c++",
    ".cpp": "c++",
    ".cppm": "c++-module",
    ".cxx": "c++",
    ".h": "c-header",
    ".hh": "c++-header",
    ".hpp": "c++-header",
    ".hxx": "c++-header",
    ".i": "cpp-output",
    ".ii": "c++-cpp-output",
    ".ll": "ir",
    ".m": "objective-c",
    ".mi": "objective-c-cpp-output",
    ".mii": "objective-c++-cpp-output",
    ".mm": "objective-c++",
    ".pcm": "c++-module",
    ".s": "assembler",
    ".sx": "assembler-with-cpp",
}

# Language → how sccache counts it.
LANGUAGES = {
    "assembler": ("Assembler", "assembler"),
    "assembler-with-cpp": ("Assembler", "assembler"),
    "c": ("C/C++", "c"),
    "c++": ("C/C++", "c++"),
    "c++-cpp-output": ("C/C++", "c++"),
    "c++-header": ("C/C++", "c++"),
    "c++-module": ("C/C++", "c++"),
    "c-header": ("C/C++", "c"),
    "cpp-output": ("C/C++", "c"),
    "ir": ("C/C++", "c"),
    "objc-cpp-output": ("C/C++", "objc"),
    "objective-c": ("C/C++", "objc"),
    "objective-c++": ("C/C++", "objc++"),
    "objective-c++-cpp-output": ("C/C++", "objc++"),
    "objective-c-cpp-output": ("C/C++", "objc"),
}

# Of which nothing is preprocessed any more: no depfile is written, whatever is asked for.
PREPROCESSED = (
    "assembler",
    "c++-cpp-output",
    "cpp-output",
    "ir",
    "objc-cpp-output",
    "objective-c++-cpp-output",
    "objective-c-cpp-output",
)

# What names directories in which headers are looked for, and files that are read before the source.
SEARCHED = ("-F", "-I", "-cxx-isystem", "-idirafter", "-iframework", "-iquote", "-isystem", "-isystem-after")
READ_FIRST = ("-imacros", "-include")

# Variables that make the compiler append to a file, or change its command line behind our back.
REFUSED_VARIABLES = ("CCC_OVERRIDE_OPTIONS", "CXX_MODULE_MAPPER", "DEPENDENCIES_OUTPUT", "GCC_COMPARE_DEBUG", "SUNPRO_DEPENDENCIES")

# What gcc 12, as 2.40 and clang 14 ask for; without observation all of them count.  Less what is told in another way (PATH, PWD).
ASKED_VARIABLES = (
    "BINUTILS_ROOT",
    "COLORTERM",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH",
    "FORCE_CLANG_DIAGNOSTICS_CRASH",
    "G++_ROOT",
    "GCC_COLORS",
    "GCC_EXEC_PREFIX",
    "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    "GCC_ROOT",
    "GCC_URLS",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "LLVM_OVERRIDE_PRODUCER",
    "LOCPATH",
    "LPATH",
    "MACOSX_DEPLOYMENT_TARGET",
    "NLSPATH",
    "OBJCPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "OUTPUT_CHARSET",
    "POSIXLY_CORRECT",
    "SDKROOT",
    "TERM_URLS",
    "TZ",
)

# Under which they write what no table names; all but the first are clang's.
LOUD_VARIABLES = (
    "AS_SECURE_LOG_FILE",
    "CC_LOG_DIAGNOSTICS",
    "CC_PRINT_HEADERS",
    "CC_PRINT_INTERNAL_STAT",
    "CC_PRINT_OPTIONS",
    "CC_PRINT_PROC_STAT",
)

# Without which a compiler is asked who it is and what it reads: the file that the caller named would tell of our questions, too.
NOT_FOR_QUESTIONS = frozenset((*REFUSED_VARIABLES, *LOUD_VARIABLES))

# Languages whose look-ups can be read off the text (compilers/c_includes.py).
LISTED_LANGUAGES = ("c", "c++", "objective-c", "objective-c++")


# Long spellings of what is known by a short one (aws-lc's build script says --include=FILE, one for newlib --specs=nano.specs).
SHORT = {
    "--ansi": "-ansi",
    "--assemble": "-S",
    "--compile": "-c",
    "--debug": "-g",
    "--debug=": "-g",
    "--define-macro": "-D",
    "--define-macro=": "-D",
    "--dependencies": "-M",
    "--imacros": "-imacros",
    "--imacros=": "-imacros",
    "--include": "-include",
    "--include-directory": "-I",
    "--include-directory-after": "-idirafter",
    "--include-directory-after=": "-idirafter",
    "--include-directory=": "-I",
    "--include=": "-include",
    "--language": "-x",
    "--language=": "-x",
    "--no-warnings": "-w",
    "--output": "-o",
    "--output=": "-o",
    "--pedantic": "-pedantic",
    "--pedantic-errors": "-pedantic-errors",
    "--pipe": "-pipe",
    "--prefix": "-B",
    "--prefix=": "-B",
    "--preprocess": "-E",
    "--print-missing-file-dependencies": "-MG",
    "--profile": "-p",
    "--save-temps": "-save-temps",
    "--shared": "-shared",
    "--specs": "-specs",
    "--specs=": "-specs=",
    "--static": "-static",
    "--trace-includes": "-H",
    "--trigraphs": "-trigraphs",
    "--undefine-macro": "-U",
    "--undefine-macro=": "-U",
    "--user-dependencies": "-MM",
    "--verbose": "-v",
    "--warn-": "-W",
    "--write-dependencies": "-MD",
    "--write-user-dependencies": "-MMD",
}


def find(tables: dict[str, Option], word: str) -> tuple[Option, str | None] | None:
    """The option that a word is, and its value if the word holds it."""
    option = tables.get(word)
    if option is not None:
        return option, ("" if option.takes is Takes.JOINED else None)
    for length in range(len(word) - 1, 1, -1):
        option = tables.get(word[:length])
        if option is not None and option.takes in (Takes.JOINED, Takes.EITHER):
            return option, word[length:]
    return None
