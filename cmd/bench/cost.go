package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"ffmpeg-agent/cmd/bench/live"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages"
)

// nvmlCommand is the subcommand of the agent's NVML child.
const nvmlCommand = "nvml-child"

const cpuTimeWindow = 20 * time.Second

// wakeCommand is the argument of the process that the agent's CPU use is compared with. It does
// nothing at each tick of wakeInterval, and so shows what waking costs on this machine: between
// machines that differs by a factor of ten.
const wakeCommand = "wake"

const wakeInterval = 100 * time.Millisecond

// wake returns when its parent has ended.
func wake() {
	parent := os.Getppid()
	for range time.Tick(wakeInterval) {
		if os.Getppid() != parent {
			return
		}
	}
}

// measureCost measures the agent's CPU use while it reads six zones and two cards, idle and
// with a job.
func measureCost(ctx context.Context, binary string) (figures []figure, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	machine, err := liveMachine(dir, live.NewDial(0))
	if err != nil {
		return nil, err
	}
	machine.Run()
	defer func() { err = errors.Join(err, machine.Close()) }()
	settings := map[string]string{"hardware.sysfs_path": machine.Tree.Sys()}
	cards, nvmlErr := fakehw.NewNVML(dir, fakehw.NVMLScenario{Update: 20 * time.Millisecond, Cards: fakehw.NVMLCards(120, 60)})
	if nvmlErr == nil {
		settings["hardware.nvml_library"] = cards.Library
	}
	b, err := startTestbed(ctx, binary, settings)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	waker := exec.CommandContext(ctx, self, wakeCommand)
	if err := waker.Start(); err != nil {
		return nil, err
	}
	defer func() { _, _ = waker.Process.Kill(), waker.Wait() }()
	if err := b.awaitBaseline(ctx); err != nil { // past the encoder probes at start
		return nil, err
	}
	idle, err := b.cpuUse(ctx, "1 Hz, idle", waker.Process.Pid)
	if err != nil {
		return nil, err
	}
	if _, err := b.submit(map[string]any{"resolution": "1920x1080", "duration": 600, "preset": "veryslow", "fps": 60}); err != nil {
		return nil, err
	}
	if err := b.awaitRunning(ctx, 1); err != nil {
		return nil, err
	}
	busy, err := b.cpuUse(ctx, "10 Hz, one FFmpeg runs", waker.Process.Pid)
	if err != nil {
		return nil, err
	}
	figures = append(idle, busy...)
	if nvmlErr != nil {
		last := &figures[len(figures)-1]
		last.Notes = append(last.Notes, "no graphics cards: "+nvmlErr.Error())
	}
	return figures, nil
}

// cpuUse measures the CPU use of the agent, its NVML child and the process that only wakes, in
// percent of one core.
func (b *testbed) cpuUse(ctx context.Context, when string, waker int) ([]figure, error) {
	type process struct {
		what   string
		limit  float64 // 0: none
		pid    int
		before proc.Stat
	}
	zones := map[string]int{}
	if err := b.await(ctx, "samplers", func(s messages.Status) bool {
		for _, h := range s.Samplers {
			zones[h.Name] = h.Zones
		}
		return true
	}); err != nil {
		return nil, err
	}
	agent := b.agent.Process.Pid
	sensors := fmt.Sprintf("%s: %d zones, %d cards", when, zones["rapl"], zones["nvml"])
	processes := []process{{what: "agent, " + sensors, limit: 1, pid: agent}}
	nvmlChild := findChild(agent, nvmlCommand)
	if nvmlChild != 0 {
		processes = append(processes, process{what: "NVML child, " + sensors, limit: 1, pid: nvmlChild})
	}
	processes = append(processes, process{what: fmt.Sprintf("%s, for comparison: a process that wakes every %v and does nothing", when, wakeInterval), pid: waker})
	begin := time.Now()
	for i := range processes {
		var err error
		if processes[i].before, err = proc.ReadStat(processes[i].pid); err != nil {
			return nil, err
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(cpuTimeWindow):
	}
	var figures []figure
	for _, p := range processes {
		after, err := proc.ReadStat(p.pid)
		if err != nil {
			return nil, err
		}
		f := figure{
			Section: sectionCost, What: p.what, Unit: "% core", Limit: p.limit,
			Value: 100 * (after.CPU - p.before.CPU).Seconds() / time.Since(begin).Seconds(),
		}
		f.check()
		figures = append(figures, f)
	}
	if nvmlChild == 0 {
		figures = append(figures, figure{Section: sectionCost, What: "NVML child, " + when, Unit: "% core",
			Violations: []string{"the process is not running"}})
	}
	figures[0].Notes = []string{fmt.Sprintf("user and system time over %.0f s, in ticks of 10 ms; the agent's includes heartbeats, polls and "+
		"job progress, not FFmpeg and other children", cpuTimeWindow.Seconds())}
	return figures, nil
}
