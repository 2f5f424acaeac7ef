#!/bin/sh
# Installs the system packages that the tests need: as root with apt-get, otherwise it says what is
# missing. Does nothing when all is there.
set -eu

missing=
need() {
    missing="$missing $*"
}
have() {
    command -v "$1" >/dev/null 2>&1
}

have git || need git
have spin || need spin
have tmux || need tmux
have java || need default-jre-headless
have npm || need npm
have setpriv || need util-linux
have strace || need strace
have groff || need groff
have man || need man-db
have zsh || need zsh
have fish || need fish
have bindfs || need bindfs fuse3
# Not to be booted here: the tests of the unit file boot it in namespaces of its own, which takes root.
[ "$(id -u)" != 0 ] || [ -x /lib/systemd/systemd ] || need systemd
[ -s /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates
printf '#include <sys/socket.h>\n' | gcc -E - >/dev/null 2>&1 || need gcc libc6-dev
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! have apt-get; then
    echo "The tests need system packages that are missing:$missing. Install them (Debian, as root:" \
        "apt-get install --no-install-recommends$missing), then run this again." >&2
    exit 1
fi
echo "Installing system packages:$missing ..."
export DEBIAN_FRONTEND=noninteractive
apt-get -o Acquire::Retries=3 update -qq
# shellcheck disable=SC2086 # one word a package
apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends $missing >/dev/null
