#!/bin/sh
#   boot.sh FOLDER
#
# Boots FOLDER/tree in a container without a network, runs FOLDER/shared/e2e.test in it, and
# returns its exit status. What it changes there is dropped at the end. Landlock, which systemd-nspawn
# forbids by default, is a layer of the agent's sandbox. Needs root.
set -eu
[ "$(id -u)" = 0 ] || { echo "systemd-nspawn needs root" >&2; exit 1; }
exec systemd-nspawn --quiet --register=no --keep-unit --boot --directory="$1/tree" --volatile=overlay --private-network \
    --bind="$1/shared:/e2e" --bind-ro="$PWD/deployment/e2e/e2e.service:/etc/systemd/system/e2e.service" \
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" \
    --console=read-only systemd.wants=e2e.service systemd.mask=console-getty.service \
    systemd.show_status=0 systemd.log_level=warning </dev/null
