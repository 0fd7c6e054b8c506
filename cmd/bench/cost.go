package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ffmpeg-agent/cmd/bench/live"
	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages"
)

// nvmlWord is in the command line of the agent's child that reads graphics cards.
const nvmlWord = "nvml-child"

// watched is how long CPU time is measured.
const watched = 20 * time.Second

// measureCost has the real agent read six zones and two cards, without and with a job.
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
	cards, why := fakehw.NewNVML(dir, fakehw.NVMLScenario{Update: 20 * time.Millisecond, Cards: fakehw.NVMLCards(120, 60)})
	if why == nil {
		settings["hardware.nvml_library"] = cards.Library
	}
	f, err := settle(ctx, binary, settings)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.leave()) }()
	if err := f.rest(ctx); err != nil { // past the start and its trial encodes
		return nil, err
	}
	idle, err := f.cost(ctx, "1 Hz, idle")
	if err != nil {
		return nil, err
	}
	if _, err := f.submit(map[string]any{"resolution": "1920x1080", "duration": 600, "preset": "veryslow", "fps": 60}); err != nil {
		return nil, err
	}
	if err := f.working(ctx, 1); err != nil {
		return nil, err
	}
	busy, err := f.cost(ctx, "10 Hz, one FFmpeg runs")
	if err != nil {
		return nil, err
	}
	figures = append(idle, busy...)
	if why != nil {
		last := &figures[len(figures)-1]
		last.Notes = append(last.Notes, "no cards: "+why.Error())
	}
	return figures, nil
}

// cost is what the agent and its child for the cards use of one core.
func (f *field) cost(ctx context.Context, when string) ([]figure, error) {
	type one struct {
		name   string
		pid    int
		before proc.Stat
	}
	agent := f.agent.Process.Pid
	processes := []one{{name: "agent", pid: agent}}
	reader := child(agent, nvmlWord)
	if reader != 0 {
		processes = append(processes, one{name: "reader of the cards", pid: reader})
	}
	zones := map[string]int{}
	if err := f.until(ctx, "samplers", func(s messages.Status) bool {
		for _, h := range s.Samplers {
			zones[h.Name] = h.Zones
		}
		return true
	}); err != nil {
		return nil, err
	}
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
	case <-time.After(watched):
	}
	var figures []figure
	for _, p := range processes {
		after, err := proc.ReadStat(p.pid)
		if err != nil {
			return nil, err
		}
		length := time.Since(begin)
		figures = append(figures, figure{
			Section: sectionCost, Unit: "% core", Goal: 1, Value: 100 * (after.CPU - p.before.CPU).Seconds() / length.Seconds(),
			What: fmt.Sprintf("%s, %s: %d zones, %d cards", p.name, when, zones["rapl"], zones["nvml"]),
		})
		figures[len(figures)-1].judge()
	}
	if reader == 0 {
		figures = append(figures, figure{Section: sectionCost, What: "reader of the cards, " + when, Unit: "% core",
			Faults: []string{"its process does not run"}})
	}
	figures[0].Notes = []string{fmt.Sprintf("user and system time of %.0f s, in ticks of 10 ms; of the agent all of it: heartbeats, polls and the job's "+
		"progress too; FFmpeg and other children not", watched.Seconds())}
	return figures, nil
}
