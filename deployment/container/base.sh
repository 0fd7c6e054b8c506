#!/bin/sh
# Imports a Debian tree under the usual name of the image's base, for engines that cannot pull
# it. The tree is kept in the directory given. An image of that name is left alone.
set -eu
dir=$1 name=debian:bookworm-slim
if docker image inspect "$name" >/dev/null 2>&1; then
	exit 0
fi
if docker pull "$name" >/dev/null 2>&1; then
	exit 0
fi
if [ ! -e "$dir/complete" ]; then
	rm -rf "$dir/root"
	mkdir -p "$dir"
	debootstrap --variant=minbase --include=ca-certificates bookworm "$dir/root" >"$dir/debootstrap.log"
	touch "$dir/complete"
fi
# Without what the slim image leaves out.
tar -C "$dir/root" --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* --exclude=./var/cache/* --exclude=./var/lib/apt/lists/* \
	--exclude=./usr/share/man/* --exclude=./usr/share/info/* --exclude=./usr/share/locale/* --exclude=./var/log/* -c . | docker import - "$name" >/dev/null
