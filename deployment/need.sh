#!/bin/sh
# Checks that programs are installed, and installs missing ones with apt-get if that needs no
# password. Otherwise prints the command that installs them.
#
#   need.sh [PROGRAM...] [--optional PROGRAM...]
#   need.sh --check PROGRAM...
#
# Exits 1 if a program that is not optional is still missing at the end. With --check it
# only sets the exit status.
set -u

# present returns success if a program is installed and works.
present() {
    case $1 in
        gcc) echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 ;; # useless without libc6-dev
        ca-certificates) certificates || GOPROXY=off "${GO:-go}" list -deps -test ./... tool >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# certificates returns success if there are root certificates where Go looks for them
# (crypto/x509/root_linux.go). Go needs them to download modules.
certificates() {
    [ -z "${SSL_CERT_FILE-}${SSL_CERT_DIR-}" ] || return 0
    for file in /etc/ssl/certs/* /etc/ssl/*.pem /etc/pki/tls/certs/* /etc/pki/ca-trust/extracted/pem/*; do
        [ ! -s "$file" ] || return 0
    done
    return 1
}

# missing prints the programs that are not present, on one line.
missing() {
    echo $(for program in "$@"; do
        present "$program" || echo "$program"
    done | sort -u)
}

# packages prints the Debian packages of programs, on one line.
packages() {
    echo $(for program in "$@"; do
        case $program in
            ffprobe) echo ffmpeg ;;
            docker) echo docker.io ;;
            gcc) printf 'gcc\nlibc6-dev\n' ;;
            ip) echo iproute2 ;;
            mkfs.ext4) echo e2fsprogs ;;
            nsenter) echo util-linux ;;
            promtool) echo prometheus ;;
            systemd-nspawn) echo systemd-container ;;
            qemu-system-x86_64) echo qemu-system-x86 ;;
            *) echo "$program" ;;
        esac
    done | sort -u)
}

if [ "${1-}" = --check ]; then
    shift
    [ -z "$(missing "$@")" ]
    exit
fi
required=
while [ $# -gt 0 ] && [ "$1" != --optional ]; do
    required="$required $1"
    shift
done
[ $# = 0 ] || shift
optional=$*
wanted=$(missing $required $optional)
[ -n "$wanted" ] || exit 0
install="apt-get install -y --no-install-recommends"

# Install. An update that fails for one source may have refreshed the one that matters.
as_root=
if [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
fi
if command -v apt-get >/dev/null 2>&1 && $as_root true >/dev/null 2>&1; then
    echo "installing: $(packages $wanted)"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    apt="$as_root env DEBIAN_FRONTEND=noninteractive $install -o DPkg::Lock::Timeout=120"
    { $as_root apt-get update; $apt $(packages $wanted); } >"$log" 2>&1 </dev/null
    wanted=$(missing $required $optional)
    [ -n "$wanted" ] || exit 0
    tail -n 5 "$log" >&2
fi

echo "missing: $wanted" >&2
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Install them with this system's package manager; Debian's packages are: $(packages $wanted)" >&2
elif [ "$(id -u)" = 0 ]; then
    echo "Install with: apt-get update && $install $(packages $wanted)" >&2
elif command -v sudo >/dev/null 2>&1; then
    echo "Install with: sudo apt-get update && sudo $install $(packages $wanted)" >&2
else
    echo "Install as root with: apt-get update && $install $(packages $wanted)" >&2
fi
[ -z "$(missing $required)" ]
