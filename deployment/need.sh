#!/bin/sh
# Makes sure that the named programs are there: installs their Debian packages where that
# is allowed, else says the one command that does.
set -eu

packages=
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 && continue
    case $program in
        ffmpeg | ffprobe) package=ffmpeg ;;
        gcc) package="gcc libc6-dev" ;;
        qemu-system-x86_64) package=qemu-system-x86 ;;
        mkfs.ext4) package=e2fsprogs ;;
        ip) package=iproute2 ;;
        *) package=$program ;;
    esac
    case " $packages " in
        *" $package "*) ;;
        *) packages="${packages:+$packages }$package" ;;
    esac
done
[ -n "$packages" ] || exit 0

install="apt-get install -y --no-install-recommends $packages"
as_root=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        echo "missing: $packages. Install with: sudo apt-get update && sudo $install" >&2
        exit 1
    fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing: $packages. Install with this system's package manager." >&2
    exit 1
fi
echo "installing: $packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { DEBIAN_FRONTEND=noninteractive $as_root apt-get update && DEBIAN_FRONTEND=noninteractive $as_root $install; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "missing: $packages, and installing failed. Install with: apt-get update && $install" >&2
    exit 1
fi
