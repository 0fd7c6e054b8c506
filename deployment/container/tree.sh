#!/bin/sh
#   tree.sh BEFORE TREE
#
# Copies ffmpeg, ffprobe and the libraries that they are linked with into TREE, with the dpkg
# entries and copyright files of their packages. What the file BEFORE lists is left out.
set -eu
before=$1 tree=$2
programs="/usr/bin/ffmpeg /usr/bin/ffprobe"
for file in $programs $(ldd $programs | awk '$3 ~ "^/" { print $3 }' | sort -u); do
    path=$(readlink -f "$(dirname "$file")")/$(basename "$file") # /lib is a link to /usr/lib
    if grep -qxF "$path" "$before"; then
        continue
    fi
    install -D "$(readlink -f "$path")" "$tree$path"
    # Alternatives belong to no package, what they refer to does.
    package=$(dpkg-query -S "*/$(basename "$(readlink -f "$path")")" | head -n 1 | cut -d : -f 1)
    [ ! -e "$tree/var/lib/dpkg/status.d/$package" ] || continue
    mkdir -p "$tree/var/lib/dpkg/status.d"
    dpkg-query -s "$package" >"$tree/var/lib/dpkg/status.d/$package"
    install -D -m 644 "$(readlink -f "/usr/share/doc/$package/copyright")" "$tree/usr/share/doc/$package/copyright"
done
