package chaos

// Sabotage is a fault in the agent's own code, which a run must catch.
type Sabotage struct {
	Name   string
	Edits  []Edit
	Faults []string // kinds, by prefix, that bring it to light; nil: all
	// ProvenBy names the test that catches it where a run cannot. Such a sabotage is listed,
	// and not played.
	ProvenBy string
}

// Edit replaces a text that occurs once in a file. The path is relative to the module.
type Edit struct{ File, Old, New string }

// Sabotages are what chaos has to catch. The list was written before any was tried.
func Sabotages() []Sabotage {
	return []Sabotage{
		{
			Name: "a result is sent before it is journalled",
			Edits: []Edit{{"actors/attempt.go", `	return a.persist(ctx, func() error {
		_, err := a.record(outcome, false)
`, `	body, _ := outcome.Body()
	_ = a.Master.Report(ctx, job.Record{Lease: a.lease, State: job.RecordResult, Result: body})
	return a.persist(ctx, func() error {
		_, err := a.record(outcome, false)
`}},
			Faults: []string{"agent: killed", "net: reset", "job: "},
		},
		{
			Name: "FFmpeg is not killed with the agent",
			Edits: []Edit{
				{"hardware/proc/platform_linux.go", `Setpgid: true, Pdeathsig: syscall.SIGKILL`, `Setpgid: true`},
				{"hardware/proc/confine_linux.go", `unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)`, `unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)`},
			},
			Faults: []string{"agent: SIGKILL", "agent: killed"},
		},
		{
			Name: "the NVML child is not killed with the agent, nor does it end by itself",
			Edits: []Edit{{"hardware/proc/platform_linux.go", `Setpgid: true, Pdeathsig: syscall.SIGKILL`, `Setpgid: true`}, {"hardware/nvmlserve.go", `	close(lines)
	select {`, `	select {`}, {"hardware/nvmlserve.go", `		os.Exit(1)`, ``}},
			Faults: []string{"agent: SIGKILL"},
		},
		{
			Name: "a result is sent twice",
			Edits: []Edit{{"actors/upload.go", `	err := send(ctx, d.record)
`, `	_ = send(ctx, d.record)
	err := send(ctx, d.record)
`}},
			Faults: []string{"job: ", "net: slow"},
		},
		{
			Name: "the heartbeat waits for the uploader",
			Edits: []Edit{{"actors/heartbeat.go", `	session := *h.snapshots.Session()
	status := h.nodeStatus()
`, `	if h.Journal.Stats().Unsent > 0 {
		return
	}
	session := *h.snapshots.Session()
	status := h.nodeStatus()
`}},
			Faults: []string{"net: ", "master: "},
		},
		{
			Name: "a temporary output is left behind",
			Edits: []Edit{
				{"internal/ffmpeg/files.go", `_ = t.dir.Remove(filepath.Base(t.temp))`, `_ = filepath.Base(t.temp)`},
				{"internal/ffmpeg/workspace.go", `switch err := os.Remove(temp); {`, `_ = temp
		switch err := error(fs.ErrNotExist); {`},
			},
			Faults: []string{"agent: killed", "ffmpeg: SIGKILL"},
		},
		{
			Name:  "the retry count is ignored when the master is asked",
			Edits: []Edit{{"internal/master/leases.go", `reassigned := elsewhere || current > leased`, `reassigned := elsewhere`}},
			// It shows where the answer to a failed result gets lost and the same agent is at
			// the next attempt when it asks.
			Faults: []string{"ffmpeg: SIGKILL", "ffmpeg: SIGSEGV", "net: reset after"},
		},
		{
			Name:   "every attempt is the first",
			Edits:  []Edit{{"messages/job/lease.go", `Attempt: l.Job.Attempt()}`, `Attempt: 1}`}},
			Faults: []string{"ffmpeg: SIGKILL", "job: "},
		},
		{
			Name:   "a result is sent again without asking",
			Edits:  []Edit{{"actors/upload.go", `return up.sent != notSent || up.overtaken.Load() || record.Requeued || record.State == job.RecordSent ||`, `return record.State == job.RecordSent || false &&`}},
			Faults: []string{"net: reset after", "net: answer", "net: stall after", "job: "},
		},
		{
			Name:     "a job that was given away runs on",
			Edits:    []Edit{{"actors/lease.go", `takesCompleted(status) && a.survivesRequeue(lease, why)`, `takesCompleted(status)`}},
			ProvenBy: "TestFrozenAgentDropsReassignedJob of cmd/agent: the jobs of a run end by themselves before it shows",
		},
		{
			Name:   "a cancellation is ignored",
			Edits:  []Edit{{"actors/lease.go", `		a.run.Stop(job.StopCanceled)`, ``}},
			Faults: []string{"job: canceled"},
		},
		{
			Name: "timers outlive a restart",
			Edits: []Edit{
				{"actors/supervision/owned.go", `p.cancel = func() { timer.Stop() }`, `p.cancel = func() {}`},
				{"actors/supervision/incarnation.go", `if m.take(i) {`, `if m.take(i); true {`},
			},
			Faults: []string{"actor: panic"},
		},
		{
			Name: "a gap of a counter is counted as zero",
			Edits: []Edit{{"hardware/energy/accumulator.go", `		a.gaps++
		return Delta{Elapsed: elapsed, Gap: true}
`, `		return Delta{Elapsed: elapsed}
`}},
			Faults: []string{"rapl: "},
		},
		{
			Name:   "core is counted beside its package",
			Edits:  []Edit{{"hardware/raplzones.go", `zone.Counted = zone.Counted && !counted[key]`, `zone.Counted = true`}},
			Faults: []string{"job: "},
		},
		{
			Name:   "an output is written under its final name",
			Edits:  []Edit{{"internal/ffmpeg/files.go", `t.temp = newTempName(t.final)`, `t.temp = t.final`}},
			Faults: []string{"ffmpeg: SIGKILL", "agent: SIGKILL"},
		},
		{
			Name: "leftovers of a dead process are not reported",
			Edits: []Edit{{"actors/jobs.go", `		if len(unfinished) == 0 {
			return nil, nil
		}
		if err := j.Janitor`, `		if len(unfinished) >= 0 {
			return nil, nil
		}
		if err := j.Janitor`}},
			Faults: []string{"agent: killed"},
		},
		{
			Name:   "a broken transfer of an input is not continued",
			Edits:  []Edit{{"internal/fetch/transfer.go", `if failed++; failed >= t.retry.attempts {`, `if failed++; failed >= 1 {`}},
			Faults: []string{"fetch: server dies", "fetch: server stalls"},
		},
		{
			Name: "the length of a fetched input is not compared",
			Edits: []Edit{
				{"internal/fetch/conn.go", `	if err == io.EOF && b.sent.Load() > b.stated {`, `	if false {`},
			},
			Faults: []string{"fetch: server lies"},
		},
		{
			Name: "a lost lease is not looked for",
			Edits: []Edit{{"internal/master/leases.go", `	return held, nil
}`, `	return nil, nil
}`}},
			Faults: []string{"net: reset after", "net: answer"},
		},
		{
			Name:     "GET /jobs/next goes over a connection that is reused",
			Edits:    []Edit{{"internal/master/transport.go", `newHTTPClient(config, false)`, `newHTTPClient(config, true)`}},
			ProvenBy: "the tests of internal/master: a job that is assigned twice is found again, only later",
		},
		{
			Name: "a full disk loses a result",
			Edits: []Edit{{"actors/attempt.go", `		_, err := a.record(outcome, false)
		return err
`, `		_, _ = a.record(outcome, false)
		return nil
`}},
			ProvenBy: "TestFullJournalLosesNothingAndTakesNoJobs of actors: the journal keeps room for the results of a run",
		},
		{
			Name:     "the journal is not brought to disk",
			Edits:    []Edit{{"internal/journal/open.go", `NoSync: s.noSync`, `NoSync: true`}},
			ProvenBy: "make guest, which cuts the power: a killed process loses nothing that the kernel has",
		},
		{
			Name: "a refusal makes a dead letter at once",
			Edits: []Edit{{"actors/upload.go", `	case protocol.Rejected:
`, `	case protocol.Rejected, protocol.ServerError:
`}, {"actors/upload.go", `	case protocol.ServerError, protocol.NotFound:`, `	case protocol.NotFound:`}},
			Faults: []string{"net: 5xx", "job: "},
		},
		{
			Name:   "a failure's reason is guessed",
			Edits:  []Edit{{"internal/ffmpeg/judge.go", `{exit.Signal != 0, protocol.ReasonRuntimeError,`, `{exit.Signal != 0, protocol.ReasonInputError,`}},
			Faults: []string{"ffmpeg: SIG"},
		},
		{
			Name: "a job leaves a goroutine",
			Edits: []Edit{{"actors/attempt.go", `	defer close(a.done)
`, `	defer close(a.done)
	go func() { select {} }()
`}},
			Faults: []string{"job: "},
		},
		{
			Name: "a job leaves a descriptor",
			// One that is only forgotten is closed by the garbage collector.
			Edits: []Edit{{"hardware/proc/cgroup.go", `	_, _ = c.dir.Close(), c.cpuStat.Close()
	return removeCgroup(c.path)`, `	_, _ = unix.Dup(int(c.dir.Fd()))
	_, _ = c.dir.Close(), c.cpuStat.Close()
	return removeCgroup(c.path)`}},
			Faults: []string{"job: "},
		},
		{
			Name:   "workspaces stay",
			Edits:  []Edit{{"internal/ffmpeg/workspace.go", `	if err := removeTree(dir); err != nil {`, `	if err := error(nil); err != nil {`}},
			Faults: []string{"agent: killed", "job: "},
		},
		{
			Name:   "an FFmpeg that stands still is waited for",
			Edits:  []Edit{{"internal/ffmpeg/encode.go", `case stall.still >= r.settings.StallTimeout:`, `case false:`}},
			Faults: []string{"ffmpeg: stopped for good"},
		},
		{
			Name:   "an NVML child that hangs is waited for",
			Edits:  []Edit{{"hardware/nvmlchild.go", `kill() { c.Signal(syscall.SIGKILL) }`, `kill() { _ = syscall.SIGKILL }`}},
			Faults: []string{"nvml: child SIGSTOP", "nvml: call hangs"},
		},
		{
			Name: "a job whose actor crashed is forgotten",
			Edits: []Edit{{"actors/jobs.go", `		New:  func() actor.Actor { return &jobActor{shared: j.shared, attempt: a} },
`, `		New: func() func() actor.Actor {
			started := false
			return func() actor.Actor {
				if started {
					return actor.ReceiveFunc(func(actor.Context) {})
				}
				started = true
				return &jobActor{shared: j.shared, attempt: a}
			}
		}(),
`}},
			Faults: []string{"actor: panic"},
		},
	}
}
