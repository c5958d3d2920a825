#!/usr/bin/env bash
# Build the program in this folder twice through sccache-py, first with an empty cache, then again from nothing
# but the cache.  Everything it makes lies in .demo/ at the top of the repository.
#
# usage: demo/run.sh BIN        BIN: the directory with the installed sccache-py
set -euo pipefail

bin=$1
demo=$(cd "$(dirname "$0")" && pwd)
work=$(dirname "$demo")/.demo

if ! cargo --version; then
    echo "demo: cargo does not run here; install Rust first.  If it is rustup's, RUSTUP_HOME must name its toolchains." >&2
    exit 1
fi

# Settings of whoever runs this must not decide what the demo shows.
for name in "${!SCCACHE_@}" "${!CARGO_BUILD_@}" "${!CARGO_PROFILE_@}"; do unset "$name"; done
unset RUSTC RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_INCREMENTAL
export SCCACHE_DIR=$work/cache CARGO_TARGET_DIR=$work/target

stop() { "$bin/sccache-py" --stop-server >/dev/null 2>&1 || true; }
stop # of an earlier demo that was interrupted
rm -rf "$work"
mkdir -p "$work"
echo '*' > "$work/.gitignore"
trap stop EXIT

now_ms() { "$bin/python" -c 'import time; print(time.monotonic_ns() // 1_000_000)'; }

build() { # the release profile: incremental crates, as in the dev profile, are not cached yet
    printf '\n== %s\n$ RUSTC_WRAPPER=sccache-py cargo build --release\n' "$1"
    local start
    start=$(now_ms)
    (cd "$demo" && RUSTC_WRAPPER=$bin/sccache-py cargo build --release --locked --offline)
    took_ms=$(($(now_ms) - start))
}

# Beforehand, so that no download is timed.
(cd "$demo" && cargo fetch --locked)

build "cold: nothing is cached"
cold_ms=$took_ms

# Moved, not deleted: deleting slows the next writes of some file systems, and the programs are compared below.
mv "$CARGO_TARGET_DIR" "$work/target.cold"
build "warm: the target directory is gone"
warm_ms=$took_ms

printf '\n== the program\n$ logsum < demo/access.log\n'
"$CARGO_TARGET_DIR/release/logsum" < "$demo/access.log"
if cmp "$work/target.cold/release/logsum" "$CARGO_TARGET_DIR/release/logsum"; then
    echo "The programs of both builds are the same, byte for byte."
else
    echo "demo: the two builds made different programs" >&2
    exit 1
fi

printf '\n== statistics\n$ sccache-py --show-stats\n'
"$bin/sccache-py" --show-stats

hits=$("$bin/sccache-py" --show-stats --stats-format json | "$bin/python" -c \
    'import json, sys; print(sum(json.load(sys.stdin)["stats"]["cache_hits"]["counts"].values()))')
if [ "$hits" -eq 0 ]; then
    echo "demo: nothing came from the cache" >&2
    exit 1
fi
printf '\ncold %d ms, warm %d ms, %d answers from the cache\n' "$cold_ms" "$warm_ms" "$hits"
