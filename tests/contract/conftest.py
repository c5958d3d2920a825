"""A stage for the clients: their programs, a short directory, an environment, tools for compilers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # for fake_server: tests are no package

from fake_server import PATIENCE_S, Conversation, FakeServer  # noqa: E402

import sccache_py  # noqa: E402

PYTHON_CLIENT = """\
#!{python} -I
import sys
sys.path.insert(0, {root!r})
from sccache_py.client.fallback import main
sys.exit(main())
"""

START_FAKE_SERVER = """\
#!/bin/sh
PYTHONPATH={root} exec {python} {server} "$@"
"""


def write_program(path: Path, text: str) -> Path:
    """An executable script."""
    # Not write_text and chmod: a fork of another thread's might keep it open for writing (ETXTBSY).
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    with os.fdopen(fd, "w") as f:
        f.write(text)
    return path


@dataclass
class Scene:
    """Where one test plays.  `env` and `cwd` may be changed before the client runs."""

    kind: str
    client: Path
    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tools = self.directory / "tools"
        self.cwd = self.directory / "work"
        self.socket = self.directory / "s.sock"
        self.tools.mkdir()
        self.cwd.mkdir()
        self.env.update(
            PATH=f"{self.tools}:/usr/bin:/bin",
            HOME=str(self.directory),
            SCCACHE_SERVER_UDS=str(self.socket),
            SCCACHE_PY_SERVER=str(self.directory / "no-such-server"),
        )

    def serve(self, conversation: Conversation) -> FakeServer:
        """A server at the scene's socket, to be used as a context manager."""
        return FakeServer(str(self.socket), conversation)

    def startable_server(self) -> Path:
        """Lets the client find a server to start; returns the folder of its reports (fake_server.main)."""
        reports = self.directory / "reports"
        reports.mkdir()
        (self.directory / ".cache" / "sccache-py").mkdir(parents=True)  # the real one makes it before it says that it is ready
        text = START_FAKE_SERVER.format(
            root=shlex.quote(str(ROOT)),
            python=shlex.quote(sys.executable),
            server=shlex.quote(str(Path(__file__).parent / "fake_server.py")),
        )
        program = write_program(self.directory / "server-program", text)
        self.env.update(SCCACHE_PY_SERVER=str(program), FAKE_SERVER_REPORT=str(reports))
        return reports

    def tool(self, name: str, script: str) -> Path:
        """A compiler, first in PATH: a script for sh."""
        return write_program(self.tools / name, f"#!/bin/sh\n{script}\n")

    def start(self, *args: str | bytes, program: str | Path | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """The client, running; stdout and stderr are pipes unless told otherwise."""
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            **options,
        }
        return subprocess.Popen([program or self.client, *args], env=self.env, cwd=self.cwd, **options)

    def run(
        self,
        *args: str | bytes,
        program: str | Path | None = None,
        input: bytes | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """The client from start to end."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*args, program=program, **options) as process:
            try:
                out, err = process.communicate(input, timeout=PATIENCE_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(args, process.returncode, out or b"", err or b"")


def compile_client(directory: Path) -> Path:
    """The C client, as plainly as the project's brief says: one command, static if this machine can."""
    program = directory / "sccache-py"
    files = [f for f in sorted((ROOT / "client" / "native").glob("*.c")) if not f.name.startswith("observe")]
    define = f'-DSCCACHE_VERSION="{sccache_py.__version__}"'
    command = ["cc", "-std=c11", "-O2", define, "-o", str(program), *map(str, files)]
    if subprocess.run([*command, "-static"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def native_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C client, alone in a folder: neither server nor ctl beside it."""
    return compile_client(tmp_path_factory.mktemp("native-client"))


@pytest.fixture(scope="session")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python client as pip would install it, alone in a folder."""
    text = PYTHON_CLIENT.format(python=sys.executable, root=str(ROOT))
    return write_program(tmp_path_factory.mktemp("python-client") / "sccache-py", text)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose name leaves room in the 108 bytes of a socket's address; tmp_path does not always."""
    directory = Path(tempfile.mkdtemp(prefix="scc"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["native", "python"])
def scene(request: pytest.FixtureRequest, short_directory: Path) -> Scene:
    """One scene with each of the two clients."""
    client: Path = request.getfixturevalue(f"{request.param}_client")
    return Scene(request.param, client, short_directory)


@pytest.fixture
def native_scene(native_client: Path, short_directory: Path) -> Scene:
    """A scene for what only the C client can do."""
    return Scene("native", native_client, short_directory)
