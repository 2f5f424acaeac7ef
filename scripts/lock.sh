#!/bin/sh
# Writes requirements/*.txt, with the hashes of all artifacts, from pyproject.toml and *.in.
# What is locked already stays; UPGRADE=1 moves everything to the newest release.
set -eu
cd "$(dirname "$0")/.."
uv_version=0.13.9
uv=.cache/uv-$uv_version/bin/uv

if [ ! -x "$uv" ]; then
    "${PYTHON:-python3}" -m venv --clear ".cache/uv-$uv_version"
    ".cache/uv-$uv_version/bin/python" -m pip install --quiet "uv==$uv_version"
fi

# Usage: lock NAME INPUT [OPTION...]
lock() {
    name=$1
    shift
    "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
        --no-annotate --custom-compile-command 'make lock' ${UPGRADE:+--upgrade} \
        --output-file "requirements/$name.txt" "$@"
    echo "requirements/$name.txt is locked"
}

build_requirements() {
    "${PYTHON:-python3}" - <<'PY'
import tomllib

with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
PY
}

# One resolution for all three: what runs in production is what was tested.
lock dev pyproject.toml --extra demo --extra dev
lock demo pyproject.toml --extra demo --constraints requirements/dev.txt
lock runtime pyproject.toml --constraints requirements/dev.txt
build_requirements | lock build -
lock ministack requirements/ministack.in
lock snakemake requirements/snakemake.in
