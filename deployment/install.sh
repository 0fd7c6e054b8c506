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
# fails or is interrupted leaves it running as it was, or starts it again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
unit=ffmpeg-agent.service
fail() { echo "install.sh: $*" >&2; exit 1; }

# runs returns whether the agent runs.
runs() {
    case $(systemctl is-active $unit) in active | activating | reloading) ;; *) return 1 ;; esac
}

stop() {
    echo "waiting for the agent's running jobs"
    systemctl stop $unit
}

# environment prints the variables that systemd gives the agent, one a line.
environment() {
    systemctl show --property Environment --value $unit | xargs -n 1 printf '%s\n'
    systemctl show --property EnvironmentFiles --value $unit | sed 's/ (ignore_errors=.*//' | while read -r file; do
        [ ! -r "$file" ] || sed -n "s/^[[:space:]]*\\([A-Za-z_][A-Za-z_0-9]*\\)=[\"']\\{0,1\\}\\([^\"']*\\).*/\\1=\\2/p" "$file"
    done
}

# accepts AGENT CONFIG returns whether an agent accepts a configuration, with those variables and
# without root's.
accepts() {
    environment | grep = | xargs -d '\n' sh -c 'agent=$1 config=$2; shift 2; exec env -i PATH="$PATH" "$@" "$agent" config --config "$config"' sh "$1" "$2" >/dev/null
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
        if runs; then stop || true; fi
        systemctl --quiet disable $unit 2>/dev/null || true
        for file in /usr/local/bin/agent /etc/systemd/system/$unit /etc/sysusers.d/ffmpeg-agent.conf /etc/udev/rules.d/60-ffmpeg-agent.rules; do
            rm -f "$file" "$file.new" # an installation that was killed leaves the latter
        done
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
if [ -e $config ] && ! accepts "$agent" $config; then
    ! runs || fail "the new agent does not accept $config with the environment of $unit"
    echo "warning: the new agent does not accept $config with the environment of $unit" >&2
fi

# leave ends an installation, whether it was complete, failed or was interrupted. What is still to
# be started has run before.
placed=
start=no
leave() {
    for file in $placed; do rm -f "$file.new"; done
    [ $start = no ] || systemctl start --no-block $unit
}
trap leave EXIT
trap 'exit 130' HUP INT TERM # of which dash does not run the trap of EXIT by itself

# put copies a file beside its place.
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

if runs; then
    start=yes
    stop
fi
for file in $placed; do mv -f "$file.new" "$file"; done
reload
echo "installed: $(/usr/local/bin/agent version)"
if [ $start = yes ]; then
    systemctl start $unit
    start=no
elif ! systemctl --quiet is-enabled $unit; then
    echo "Set master.url in /etc/ffmpeg-agent/agent.yaml, write the key and start the agent:"
    echo "  echo \"\$MASTER_API_KEY\" | install -m 640 -g ffmpeg /dev/stdin /etc/ffmpeg-agent/key"
    echo "  systemctl enable --now ffmpeg-agent"
fi
