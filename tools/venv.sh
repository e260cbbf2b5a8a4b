#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Makes the virtual environment DIR with pip in it: tools/venv.sh DIR
#
# PYTHON names the interpreter; without it the first of python3, python3.13,
# python3.12, python3.11 that is new enough is taken.  Debian keeps the module
# that puts pip into a virtual environment in a package of its own,
# python3-venv.  Where that is missing, pip comes from the Debian package it
# would come from, unpacked to a temporary folder: nothing is installed.
set -eu

venv=$1

fail() {
    printf 'rmaplab: %s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer (tried: ${PYTHON:-python3 python3.13 python3.12 python3.11})" \
        "remedy on Debian 12 or newer: apt-get install python3 python3-venv" \
        "remedy elsewhere: name one, as in \`make PYTHON=/path/to/python3.12 ...\`"
}

# Debian's pip as a wheel: prints its path.
find_pip_wheel() {
    for wheel in /usr/share/python-wheels/pip-*.whl "$scratch"/unpacked/usr/share/python-wheels/pip-*.whl; do
        if [ -f "$wheel" ]; then
            printf '%s\n' "$wheel"
            return
        fi
    done
    return 1
}

# Downloads and unpacks Debian's package of that wheel, as any user.
unpack_pip_wheel() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
    set -- apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Dir::Cache="$scratch/cache"
    if ! (cd "$scratch" && "$@" download python3-pip-whl) 2>/dev/null; then
        # No package lists on this machine: fetch them for this once.
        set -- "$@" -o Dir::State::Lists="$scratch/lists"
        "$@" update && (cd "$scratch" && "$@" download python3-pip-whl) || return 1
    fi
    dpkg-deb -x "$scratch"/python3-pip-whl_*.deb "$scratch/unpacked"
}

python=$(find_python)
echo "rmaplab: setting up $venv with $("$python" --version)" >&2

if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv --clear "$venv"
    exit
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
"$python" -m venv --clear --without-pip "$venv"
wheel=$(find_pip_wheel) || { unpack_pip_wheel && wheel=$(find_pip_wheel); } ||
    fail "$python cannot put pip into a virtual environment: its module ensurepip is missing" \
        "remedy on Debian: apt-get install python3-venv"
"$venv/bin/python" "$wheel/pip" install --quiet --no-index --disable-pip-version-check "$wheel"
