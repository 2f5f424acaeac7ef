#!/bin/sh
# Usage: scripts/venv.sh runtime|demo|dev
# Makes .venv with the locked requirements of that set and the package itself (editable). Does
# nothing when they are there already. PYTHON names the Python to use.
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "$1" >&2
    exit 1
}

case ${1:-} in
runtime) supersets="runtime demo dev" ;;
demo) supersets="demo dev" ;;
dev) supersets="dev" ;;
*) die "Unknown set of requirements '${1:-}': expected runtime, demo or dev." ;;
esac

# Where the checkout lies counts too: an environment does not survive being moved.
wanted=$({ pwd && cat requirements/build.txt requirements/dev.txt requirements/demo.txt \
    requirements/runtime.txt pyproject.toml; } | sha256sum)
for name in $supersets; do
    if [ -x .venv/bin/python ] && [ "$(cat ".venv/installed-$name" 2>/dev/null)" = "$wanted" ]; then
        exit 0
    fi
done

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || die "Python 3.11 or newer is needed, and ${PYTHON:-python3} is \
$("${PYTHON:-python3}" --version 2>/dev/null || echo missing). Install one (Debian: apt-get install python3 \
python3-venv), or name one: make venv PYTHON=python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python cannot make virtual environments: \
its module venv or ensurepip is missing. Install it (Debian: apt-get install python3-venv), then \
run this again."

if [ ! -x .venv/bin/python ] || ! new_enough .venv/bin/python \
    || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear .venv
fi
echo "Installing the $1 requirements into .venv ..."
rm -f .venv/installed-*
pip() {
    .venv/bin/python -m pip --disable-pip-version-check "$@"
}
pip install --quiet --require-hashes -r requirements/build.txt -r "requirements/$1.txt"
pip install --quiet --no-deps --no-build-isolation --editable .
echo "$wanted" >".venv/installed-$1"
