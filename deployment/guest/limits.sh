# Delegates a cgroup as systemd does for a unit with User= and Delegate=yes, and runs the
# tests in it as that user; then runs the tests that need root.
cgroup=/sys/fs/cgroup
for controller in cpu memory pids io; do
    echo +$controller >$cgroup/cgroup.subtree_control
done
mkdir $cgroup/system.slice
for controller in cpu memory pids io; do
    echo +$controller >$cgroup/system.slice/cgroup.subtree_control
done
grep -q ' /disk ' /proc/mounts || exit 1
chown 1000:1000 /disk
export FFMPEG_TEST_DISK=/disk FFMPEGTEST_HELPER=/sandbox-helper

# delegated NAME COMMAND runs a command as user ffmpeg in a cgroup delegated to that user.
delegated() (
    unit=$cgroup/system.slice/$1.service
    mkdir $unit
    chown 1000:1000 $unit $unit/cgroup.procs $unit/cgroup.subtree_control $unit/cgroup.threads
    sh -c 'echo $PPID' >$unit/cgroup.procs
    exec su -s /bin/sh ffmpeg -c "cd /tmp && exec $2"
)
delegated proc '/proc.test -test.v -test.timeout 5m -test.run "Cgroup|Kill" -test.skip ChildDiesWithKilledParent' || exit 1
delegated ffmpeg-agent '/ffmpeg.test -test.v -test.timeout 10m -test.run "Controllers|Reap|OutlivesAKilledAgent"' || exit 1
cd /tmp
/proc.test -test.v -test.run Delegated || exit 1
exec /ffmpeg.test -test.v -test.timeout 10m -test.run FullDisk
