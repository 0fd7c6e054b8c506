#!/bin/sh
# Installs the agent on a Linux with systemd, or removes it. On Debian use the package.
#
#   install.sh [AGENT]      install or upgrade; AGENT is the binary (default: bin/agent)
#   install.sh --uninstall  remove it, but keep configuration, key, journal and workspaces
#   install.sh --purge      remove these as well; the user ffmpeg stays, because outputs
#                           that belong to it may lie anywhere
#
# A running agent is stopped last, once the new files are beside the old ones: it finishes and
# reports its running jobs, and after an upgrade it is started again. An installation that
# fails leaves it running as it was.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
unit=ffmpeg-agent.service
fail() { echo "install.sh: $*" >&2; exit 1; }

# stop stops the agent if it runs, and returns whether it did.
stop() {
    case $(systemctl is-active $unit) in active | activating | reloading) ;; *) return 1 ;; esac
    echo "waiting for the agent's running jobs"
    systemctl stop $unit
}

# reload makes systemd and udev read their files again.
reload() {
    systemctl daemon-reload
    if [ -S /run/udev/control ]; then
        udevadm control --reload
        udevadm trigger --subsystem-match=powercap --action=change || true
    fi
}

[ "$(id -u)" = 0 ] || fail "must be run by root"
[ -d /run/systemd/system ] || fail "systemd does not run here"
case ${1-} in
    --uninstall | --purge)
        stop || true
        systemctl --quiet disable $unit 2>/dev/null || true
        rm -f /usr/local/bin/agent /etc/systemd/system/$unit /etc/sysusers.d/ffmpeg-agent.conf /etc/udev/rules.d/60-ffmpeg-agent.rules
        rmdir /etc/sysusers.d 2>/dev/null || true # in use by others
        if [ "$1" = --purge ]; then
            rm -rf /etc/ffmpeg-agent /var/lib/ffmpeg-agent /etc/systemd/system/$unit.d
        fi
        reload
        echo "removed"
        exit
        ;;
    -*) fail "unknown option $1" ;;
esac

agent=${1:-$here/../bin/agent}
"$agent" version >/dev/null || fail "$agent is not an agent that runs here; make build makes bin/agent"
command -v systemd-sysusers >/dev/null || fail "systemd-sysusers is missing"
command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || echo "warning: install ffmpeg and ffprobe: the agent takes no jobs without them" >&2

config=/etc/ffmpeg-agent/agent.yaml
[ ! -e $config ] || "$agent" config --config $config >/dev/null || fail "the new agent does not accept $config"

# put copies a file beside its place.
placed=
trap 'for file in $placed; do rm -f "$file.new"; done' EXIT
put() {
    placed="$placed $3"
    install -D -m "$1" "$2" "$3.new" || fail "nothing has changed"
}
put 755 "$agent" /usr/local/bin/agent
put 644 "$here/$unit" /etc/systemd/system/$unit
put 644 "$here/ffmpeg-agent.rules" /etc/udev/rules.d/60-ffmpeg-agent.rules
put 644 "$here/ffmpeg-agent.sysusers" /etc/sysusers.d/ffmpeg-agent.conf
[ -e $config ] || put 644 "$here/agent.yaml" $config
systemd-sysusers "$here/ffmpeg-agent.sysusers" || fail "nothing has changed"

start=no
if stop; then start=yes; fi
for file in $placed; do mv -f "$file.new" "$file"; done
reload
echo "installed: $(/usr/local/bin/agent version)"
if [ $start = yes ]; then
    systemctl start $unit
elif ! systemctl --quiet is-enabled $unit; then
    echo "Set master.url in /etc/ffmpeg-agent/agent.yaml, write the key and start the agent:"
    echo "  echo \"\$MASTER_API_KEY\" | install -m 640 -g ffmpeg /dev/stdin /etc/ffmpeg-agent/key"
    echo "  systemctl enable --now ffmpeg-agent"
fi
