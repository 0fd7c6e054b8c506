# Delegates a cgroup as systemd does for a unit with User= and Delegate=yes, and runs the
# tests in it as that user; then those that root may do more in.
cgroup=/sys/fs/cgroup
for controller in cpu memory pids io; do
    echo +$controller >$cgroup/cgroup.subtree_control
done
mkdir $cgroup/system.slice
for controller in cpu memory pids io; do
    echo +$controller >$cgroup/system.slice/cgroup.subtree_control
done
grep -q ' /disk ' /proc/mounts || exit 1
unit=$cgroup/system.slice/ffmpeg-agent.service
mkdir $unit
chown 1000:1000 $unit $unit/cgroup.procs $unit/cgroup.subtree_control $unit/cgroup.threads
chown 1000:1000 /disk
export FFMPEG_TEST_DISK=/disk
(
    sh -c 'echo $PPID' >$unit/cgroup.procs
    exec su -s /bin/sh ffmpeg -c 'cd /tmp && exec /ffmpeg.test -test.v -test.timeout 10m -test.run "Controllers|InItsCgroup|OwnCgroups|Reap|AKillMisses|OutlivesAKilledAgent"'
) || exit 1
cd /tmp && exec /ffmpeg.test -test.v -test.timeout 10m -test.run 'OnlyWhatIsDelegated|FullDisk'
