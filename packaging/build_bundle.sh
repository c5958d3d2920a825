#!/usr/bin/env bash
# Build the folder that runs without Python: OUT/sccache-py.
# The wheel is built and installed in an environment of its own, then frozen from there with PyInstaller.
#
# usage: packaging/build_bundle.sh OUT        PYTHON: the interpreter to freeze (python3)
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?usage: packaging/build_bundle.sh OUT}"
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet build
# By way of the source distribution: what lies in build/ from an earlier build cannot get in.
"$work/venv/bin/python" -m build --outdir "$work/dist" "$root"
wheels=("$work"/dist/*.whl)
"$work/venv/bin/pip" install --quiet "${wheels[0]}[bundle]"
"$work/venv/bin/pyinstaller" --noconfirm --log-level WARN \
    --distpath "$out" --workpath "$work/pyinstaller" "$root/packaging/sccache_py.spec"
echo "$out/sccache-py"
