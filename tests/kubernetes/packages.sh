#!/bin/sh
# Installs what a Kubernetes of the tests needs on Debian or Ubuntu beside the lab's packages; Go has to be there.
set -eu
lacking=""
need() { # command or file, package
  command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || lacking="$lacking $2"
}
need etcd etcd-server
need /usr/lib/cni/bridge containernetworking-plugins
need conntrack conntrack
need iptables iptables
need buildah buildah
need mmdebstrap mmdebstrap
need openssl openssl
need promtool prometheus
[ -n "$lacking" ] || exit 0
# shellcheck disable=SC2086 # one word a package
exec sh "$(dirname "$0")/../lab/install.sh" $lacking
