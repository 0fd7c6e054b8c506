#!/bin/sh
#   fetch.sh FOLDER
#
# Puts into FOLDER what the guest boots from: a kernel, its modules for a virtual disk and
# network, and a static busybox. They are unpacked from Debian packages; nothing is installed.
set -eu
cd "$1"

[ "$(uname -m)" = x86_64 ] || { echo "the guest supports x86_64 only" >&2; exit 1; }
[ -f complete ] && [ -f modules/veth.ko ] && exit 0
rm -rf packages root && mkdir packages root

kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || { echo "package linux-image-cloud-amd64 not found; run apt-get update" >&2; exit 1; }
(cd packages && apt-get -q -o APT::Sandbox::User= download "$kernel" busybox-static >/dev/null)
for package in packages/*.deb; do
    dpkg-deb -x "$package" root
done
cp root/boot/vmlinuz-* kernel
cp root/bin/busybox busybox 2>/dev/null || cp root/usr/bin/busybox busybox
mkdir -p modules
for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk veth; do
    find root -name "$module.ko" -exec cp {} modules/ \;
done
rm -rf packages root
touch complete
