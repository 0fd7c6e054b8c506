#!/bin/sh
#   tree.sh FOLDER
#
# Puts into FOLDER/tree a Debian with systemd and ffmpeg, once. Needs root.
set -eu
cd "$1"
[ -f complete ] && exit 0
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root" >&2; exit 1; }
rm -rf tree
echo "fetching a Debian system"
debootstrap --variant=minbase --include=systemd,systemd-sysv,udev,dbus,ca-certificates,curl,iproute2,man-db,bash-completion \
    bookworm tree >debootstrap.log 2>&1 || { tail -n 20 debootstrap.log >&2; exit 1; }
chroot tree sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends ffmpeg && apt-get clean' \
    >ffmpeg.log 2>&1 || { tail -n 20 ffmpeg.log >&2; exit 1; }
echo worker >tree/etc/hostname
touch complete
