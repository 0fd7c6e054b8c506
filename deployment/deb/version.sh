#!/bin/sh
#   version.sh VERSION COMMITS
#
# Prints the version of the Debian package for one that "git describe --tags --always --dirty"
# prints, such as v1.2.0, v1.2.0-5-gabc1234-dirty or, without a tag, abc1234. COMMITS is the
# number of commits, which orders versions without a tag.
set -eu

dirty=
case $1 in *-dirty) dirty=+dirty ;; esac
version=${1%-dirty}
case $version in
    v[0-9]*-*-g*)
        commit=${version##*-}
        tag=${version%-*}
        version=${tag%-*}+${tag##*-}.$commit
        version=${version#v}
        ;;
    v[0-9]*) version=${version#v} ;;
    [0-9]*.*) ;;
    *) version=0.0.0~r${2:-0}.g$(printf %s "$version" | tr -cd '[:alnum:]') ;;
esac
# A hyphen would begin a Debian revision; before one, 1.0-rc1 would not sort below 1.0.
printf '%s%s\n' "$(printf %s "$version" | sed 's/-/~/g')" "$dirty"
