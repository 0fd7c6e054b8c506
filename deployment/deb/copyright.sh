#!/bin/sh
#   copyright.sh AGENT
#
# Prints the copyright file of the package: what is known of the agent's own licence, and the
# licences of the modules that the binary AGENT contains, each text once. Run it in the module's tree.
set -eu
go=${GO:-go}
texts=$(mktemp -d)
trap 'rm -rf "$texts"' EXIT

# add notes the licence texts in a directory for a module.
add() { # MODULE DIRECTORY
    found=
    for file in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING* "$2"/NOTICE* "$2"/License*; do
        [ -f "$file" ] || continue
        sum=$(sha256sum <"$file" | cut -c 1-64)
        [ -f "$texts/$sum" ] || cp "$file" "$texts/$sum"
        echo "$1" >>"$texts/$sum.modules"
        found=yes
    done
    [ -n "$found" ] || { echo "copyright.sh: no licence in $2" >&2; exit 1; }
}

add "Go $("$go" env GOVERSION), standard library" "$("$go" env GOROOT)"
"$go" version -m "$1" | awk '$1 == "dep" { print $2, $3 }' >"$texts/modules"
while read -r module version; do
    directory=$("$go" list -m -f '{{.Dir}}' "$module")
    add "$module $version" "$directory"
done <"$texts/modules"

cat <<'END'
ffmpeg-agent: no licence has been stated for it. Ask its maintainer before distributing it.

The program contains the following modules under the licences below them.
END
for modules in "$texts"/*.modules; do
    printf '\n----------------------------------------------------------------------\n\n'
    cat "$modules"
    echo
    cat "${modules%.modules}"
done
