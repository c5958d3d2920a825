"""Two cold builds at once and an editor's `cargo check` beside them: plain cargo (three jobservers) and with the cache (one pool).

    python benchmarks/jobserver_check.py CLIENT [CRATES]

CLIENT is an installed sccache-py.  Prints for each way the wall time until both builds are done and the latency of the checks that ran
meanwhile (each after a change of the checked crate).  Everything is made in a temporary directory; nothing is downloaded.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FUNCTION = "pub fn f{i}(x: u64) -> u64 {{ let mut v = vec![x; {i} + 3]; v.sort(); v.iter().map(|a| a.wrapping_mul({salt})).sum() }}\n"


def workspace(directory: Path, crates: int, functions: int, salt: int) -> Path:
    names = [f"c{n}" for n in range(crates)]
    for n, name in enumerate(names):
        (directory / name / "src").mkdir(parents=True)
        # Every fourth needs the one before it, as real graphs do.
        needs = f'[dependencies]\nc{n - 1} = {{ path = "../c{n - 1}" }}\n' if n % 4 else ""
        (directory / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n{needs}')
        source = "".join(FUNCTION.format(i=i, salt=salt + n) for i in range(functions))
        (directory / name / "src" / "lib.rs").write_text(source)
    members = ", ".join(f'"{name}"' for name in names)
    (directory / "Cargo.toml").write_text(f'[workspace]\nresolver = "2"\nmembers = [{members}]\n')
    return directory


def measure(root: Path, crates: int, env: dict[str, str]) -> tuple[float, list[float]]:
    builds = [workspace(root / f"build{n}", crates, 150, 1000 * n) for n in range(2)]
    check = workspace(root / "check", 4, 40, 9000)
    run = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    edited = check / "c3" / "src" / "lib.rs"
    subprocess.run(["cargo", "check", "--offline"], cwd=check, check=True, **run)  # type: ignore[call-overload]
    began = time.perf_counter()
    running = [subprocess.Popen(["cargo", "build", "--release", "--offline"], cwd=b, **run) for b in builds]  # type: ignore[call-overload]
    latencies: list[float] = []
    while any(b.poll() is None for b in running):
        with edited.open("a") as f:
            f.write(f"pub fn extra{len(latencies)}() {{}}\n")
        start = time.perf_counter()
        subprocess.run(["cargo", "check", "--offline"], cwd=check, check=True, **run)  # type: ignore[call-overload]
        latencies.append(time.perf_counter() - start)
        time.sleep(0.2)  # a human's pause
    assert all(b.returncode == 0 for b in running)
    return time.perf_counter() - began, latencies


def main() -> None:
    client, crates = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12
    for name in ("plain cargo", "sccache-py"):
        with tempfile.TemporaryDirectory(prefix="check") as directory:
            env = {**os.environ, "CARGO_TERM_QUIET": "true"}
            env.pop("RUSTC_WRAPPER", None)
            if name != "plain cargo":
                env.update(RUSTC_WRAPPER=client, SCCACHE_DIR=f"{directory}/cache", SCCACHE_SERVER_UDS=f"{directory}/s.sock")
            try:
                wall, latencies = measure(Path(directory), crates, env)
            finally:
                if "RUSTC_WRAPPER" in env:
                    subprocess.run([client, "--stop-server"], env=env, stdout=subprocess.DEVNULL, check=False)
        worst = max(latencies)
        print(f"{name:12} {wall:6.1f} s   {len(latencies)} checks: median {statistics.median(latencies):.2f} s, worst {worst:.2f} s")


if __name__ == "__main__":
    main()
