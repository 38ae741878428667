#!/bin/sh
# Installs the packages that it is given, as root on Debian or Ubuntu.
#
# Debian starts the services of what it installs; tests start their own, so starting is refused (policy-rc.d, exit 101)
# while this runs, unless the machine has a policy of its own.
set -eu

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

echo "installing $*"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
log=$(mktemp)
install() {
  apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "$@" >"$log" 2>&1
}
install "$@" || { apt-get -qq update >>"$log" 2>&1 || true; install "$@"; } || { cat "$log" >&2; exit 1; }
rm -f "$log"
