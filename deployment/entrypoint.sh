#!/bin/sh
# Starts the agent in its container, on the host's /sys and /proc where they are mounted.
[ -d /host/sys/class ] && export FFMPEG_AGENT_HARDWARE_SYSFS_PATH="${FFMPEG_AGENT_HARDWARE_SYSFS_PATH:-/host/sys}"
[ -e /host/proc/stat ] && export FFMPEG_AGENT_HARDWARE_PROCFS_PATH="${FFMPEG_AGENT_HARDWARE_PROCFS_PATH:-/host/proc}"
exec /usr/local/bin/agent "$@"
