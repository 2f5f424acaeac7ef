#!/bin/sh
# Boots the systemd of this machine as PID 1 of a root that is thrown away: an overlay over `/` whose every
# write goes into memory, in namespaces of its own but for the network. Needs root.
#
#   systemd_overlay.sh boot FOLDER TOKEN [FROM:TO[:rw] ...]   runs until it is killed, and all inside with it
#   systemd_overlay.sh clear FOLDER TOKEN                     removes its control group; once it has ended
#
# FOLDER is an empty one. TOKEN is 32 hex digits, never used before: it names the control group, is the
# machine id inside, and stands in /daylily-overlay, by which whoever enters proves that he is inside. Each
# FROM is seen as TO, read-only unless :rw is added. Nothing starts by itself but journald: no unit that this
# machine has enabled, no generator, no timer, no tmpfiles rule. /sys and /proc/sys are read-only, because
# they are the machine's own.
set -eu
self=$(realpath "$0")
verb=$1 folder=$2 token=$3
shift 3

die() {
    echo "systemd_overlay: $1" >&2
    exit 1
}

in_own_mounts() {
    [ "$(readlink /proc/self/ns/mnt)" != "$(readlink "/proc/$PPID/ns/mnt")" ]
}

boot() {
    in_own_mounts || exec unshare --mount --propagation private -- sh "$self" boot "$folder" "$token" "$@"
    mkdir "$folder/cgroup" "$folder/memory"
    mount -t cgroup2 none "$folder/cgroup"
    mkdir "$folder/cgroup/daylily-$token"
    echo $$ >"$folder/cgroup/daylily-$token/cgroup.procs"
    umount "$folder/cgroup"
    mount -t tmpfs -o size=1G,mode=755 tmpfs "$folder/memory"
    cd "$folder/memory"
    mkdir upper work root
    mount -t overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" overlay root
    exec unshare --pid --fork --kill-child=SIGKILL --cgroup --uts --ipc -- \
        sh "$self" inside "$folder" "$token" "$@"
}

# The first process of the new namespaces. Changes nothing before it has proved where it is.
inside() {
    [ $$ = 1 ] || die "not the first process of a namespace"
    cd "$folder/memory/root"
    [ "$(stat -f -c %T .)" = overlayfs ] || die "$PWD is no overlay"
    echo "$token" >daylily-overlay
    [ ! -e /daylily-overlay ] || die "what is written to the overlay appears on the machine"
    mount_system
    for place in "$@"; do
        show "$place"
    done
    quieten
    mkdir .machine
    pivot_root . .machine
    umount -l /.machine
    [ "$(cat /daylily-overlay)" = "$token" ] || die "the root is not the overlay"
    exec env -i container=overlay PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
        /lib/systemd/systemd --system --log-target=journal --show-status=no --unit=basic.target
}

mount_system() {
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs sysfs sys
    mount -o remount,bind,ro sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        : >"dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts
    mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    echo "$token" >run/machine-id
    [ -e etc/machine-id ] || : >etc/machine-id
    mount --bind run/machine-id etc/machine-id
}

# Shows FROM as TO, and lets every user pass the folders on the way there.
show() {
    from=${1%%:*} to=${1#*:}
    to=${to%:rw}
    mkdir -p "./$to"
    mount --bind "$from" "./$to"
    [ "$1" != "${1%:rw}" ] || mount -o remount,bind,ro "./$to"
    way=$(dirname "$to")
    while [ "$way" != / ]; do
        chmod o+x "./$way"
        way=$(dirname "$way")
    done
}

# Hides under empty folders what would be started or generated at boot; then enables journald.
quieten() {
    units=usr/lib/systemd/system
    mount -t tmpfs -o mode=755 tmpfs usr/lib/systemd/system-generators
    for target in basic local-fs sockets sysinit timers; do
        [ ! -d "$units/$target.target.wants" ] ||
            mount -t tmpfs -o mode=755 tmpfs "$units/$target.target.wants"
    done
    ln -s ../systemd-journald.service "$units/sysinit.target.wants/"
}

clear() {
    in_own_mounts || exec unshare --mount --propagation private -- sh "$self" clear "$folder" "$token"
    mount -t cgroup2 none "$folder/cgroup"
    [ ! -d "$folder/cgroup/daylily-$token" ] ||
        find "$folder/cgroup/daylily-$token" -depth -type d -exec rmdir {} +
}

case $verb in
boot | inside | clear) "$verb" "$@" ;;
*) die "unknown verb $verb" ;;
esac
