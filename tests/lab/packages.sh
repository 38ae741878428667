#!/bin/sh
# Installs what the lab (tests/lab/needs.py) and the tests of the status page (tests/web/chromium.py) need on Debian or
# Ubuntu, as root; does nothing where all of it is there.
#
# Only packages whose commands are missing are asked for: an engine from elsewhere that brings its own containerd is left
# as it is, and no service that runs is restarted.
set -eu

lacking=""
need() { # command, package
  command -v "$1" >/dev/null 2>&1 || lacking="$lacking $2"
}
need containerd containerd
need ctr containerd
need runc runc
need docker-registry docker-registry
need skopeo skopeo
need ip iproute2
need tc iproute2
need nsenter util-linux
need setpriv util-linux
need nginx nginx-light
need ps procps
need faketime faketime
need podman podman
need dockerd docker.io
# the tests of the status page; Ubuntu has it as a snap only, which a container cannot install
grep -qs '^ID=debian$' /etc/os-release && need "${CHROMIUM:-chromium}" chromium
[ -n "$lacking" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "the tests need$lacking: install them (this script does so as root on Debian and Ubuntu)" >&2
  exit 1
fi

# shellcheck disable=SC2086 # one word a package
exec sh "$(dirname "$0")/install.sh" $lacking
