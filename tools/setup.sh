#!/bin/sh
# Makes the environment: a venv that holds the packages of requirements/dev.txt, by hash, and this checkout, editable.
#
# usage: tools/setup.sh PYTHON VENV, from the top of the checkout
# A venv of another Python is made anew. Nothing outside the venv is touched, but for python3-venv, which Debian and
# Ubuntu leave out of python3: as root it is installed there.
set -eu
python=$1
venv=$2

refuse() {
  echo "setup: $*" >&2
  exit 1
}

version_of() {
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

can_make_venvs() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null
}

install_venv_package() {
  echo "setup: installing python3-venv"
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
  log=$(mktemp)
  { apt-get -qq update && apt-get -qq -y --no-install-recommends install python3-venv; } >"$log" 2>&1 || {
    cat "$log" >&2
    rm -f "$log"
    refuse "python3-venv could not be installed; install it and run make again"
  }
  rm -f "$log"
}

version=$(version_of "$python") ||
  refuse "no $python here: install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  refuse "$python is Python $version, and 3.11 or newer is needed: make setup PYTHON=/path/to/python3"

if ! can_make_venvs; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    install_venv_package
  else
    refuse "$python cannot make environments: install its venv module (on Debian and Ubuntu: apt-get install python3-venv)"
  fi
  can_make_venvs || refuse "$python cannot make environments although python3-venv is installed: name another Python, make setup PYTHON=/usr/bin/python3"
fi

if [ "$(version_of "$venv/bin/python" || true)" != "$version" ]; then
  echo "setup: making $venv with Python $version"
  "$python" -m venv --clear "$venv"
fi
echo "setup: installing the packages of requirements/dev.txt"
pip="$venv/bin/python -m pip -q --disable-pip-version-check --no-input"
# --no-deps: the lock names everything, and pip before 23.3 resolves NAME[EXTRA] past the pin of NAME once a newer one is out.
$pip install --require-hashes --no-deps -r requirements/dev.txt
$pip install --no-deps --no-build-isolation -e .
