#!/bin/busybox sh
# The guest's init: sets up a minimal system with one cgroup v2 tree, runs /run.sh, and prints
# its exit status. Where the disk has an init, that takes over instead.
/bin/busybox mkdir -p /proc /sys /dev /tmp /etc /disk /usr/bin
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
echo 'root:x:0:0::/tmp:/bin/sh
ffmpeg:x:1000:1000::/tmp:/bin/sh' >/etc/passwd
drivers=/lib/modules/$(uname -r)
mkdir -p "$drivers"
mv /modules/*.ko "$drivers"
depmod
modprobe -a virtio_pci virtio_blk
[ ! -b /dev/vda ] || mount -t ext4 /dev/vda /disk
if [ -x /disk/lib/systemd/systemd ]; then
    modprobe veth
    umount /sys/fs/cgroup /sys /tmp
    mount --move /dev /disk/dev
    umount /proc
    exec switch_root /disk /lib/systemd/systemd
fi
sh /run.sh
echo "guest: ended with $?"
poweroff -f
