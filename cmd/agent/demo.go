package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/report"
	"ffmpeg-agent/messages/protocol"
)

// errDemo is what a demo ends with when not every job completed.
var errDemo = errors.New("not every job of the demo completed")

func newDemo() *cobra.Command {
	var input, reportFile string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run real transcodes against an embedded master and show what they cost",
		Long: `Start a master inside this process and a full agent against it over real HTTP,
run three transcodes (H.264, H.265, VP9), and show progress and the energy report.
Nothing is left behind but the report that --report asks for.`,
		Example: "  agent demo\n  agent demo --input holiday.mov --report holiday.html",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("input") && input == "" {
				return usageError{errors.New("--input: names no file")}
			}
			return demo(cmd.Context(), input, reportFile, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "transcode this `file` instead of a synthetic picture")
	cmd.Flags().StringVar(&reportFile, "report", "", "write the first job's energy report to this HTML `file`")
	return cmd
}

// demoJobs are small enough for two cores and large enough to be seen working.
func demoJobs(input string) ([]protocol.JobRequest, error) {
	var jobs []protocol.JobRequest
	for _, j := range []struct {
		scenario, resolution, bitrate, preset string
		seconds                               int
	}{
		{"360p30-h264", "640x360", "1200k", "medium", 20},
		{"360p30-h265", "640x360", "800k", "fast", 8},
		{"240p30-vp9", "426x240", "400k", "", 8},
	} {
		p := map[string]any{"resolution": j.resolution, "bitrate": j.bitrate, "duration": j.seconds}
		if j.preset != "" {
			p["preset"] = j.preset
		}
		if input != "" {
			path, err := filepath.Abs(input)
			if err != nil {
				return nil, fmt.Errorf("resolving --input: %w", err)
			}
			if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("--input: %w", err)
			}
			p["input"] = path
		}
		jobs = append(jobs, protocol.JobRequest{Scenario: j.scenario, Engine: "ffmpeg", Parameters: p})
	}
	return jobs, nil
}

func demo(ctx context.Context, input, reportFile string, stdout, stderr io.Writer) (err error) {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer cancel()
	loaded, err := configs.Load(configs.Source{Environ: os.Environ()})
	if err != nil {
		return err
	}
	cfg := loaded.Config
	for _, program := range []string{cfg.Hardware.FFmpeg, cfg.Hardware.FFprobe} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed; install it with: sudo apt-get install ffmpeg", program)
		}
	}
	requests, err := demoJobs(input)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ffmpeg-agent-demo-")
	if err != nil {
		return fmt.Errorf("making the demo's folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	terminal := isTerminal(stdout)
	stdout = &interruptibleWriter{out: stdout, interrupted: ctx.Done()}
	log := newLogger(configs.Log{Level: "error", Format: "console"}, stderr)
	defer log.close()
	m, err := startDemoMaster(log.Logger)
	if err != nil {
		return err
	}
	defer m.close()
	cfg.Master = configs.Master{URL: m.url, APIKey: configs.NewSecret(m.key), UnavailableAfter: cfg.Master.UnavailableAfter}
	cfg.DataDir, cfg.Register = dir, true
	// The ports may be a real agent's.
	cfg.MetricsPort, cfg.Exporters = 0, configs.Exporters{}
	cfg.PollInterval, cfg.HeartbeatInterval = 500*time.Millisecond, time.Second

	w, err := newWorker(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Fprintf(stdout, "ffmpeg-agent %s: a master on %s, an agent, three real transcodes\n\n", version, m.url)

	awaitIdleBaseline(ctx, w, stdout)
	jobs := make([]protocol.Job, len(requests))
	for i, request := range requests {
		if jobs[i], err = m.Submit(request); err != nil {
			return fmt.Errorf("queueing a demo job: %w", err)
		}
	}
	view := newDemoView(stdout, terminal, w, m.Master, jobs)
	if err := view.watch(ctx); err != nil {
		// Interrupted: end FFmpeg before the data directory goes.
		w.agent.Drain(0)
		w.agent.StopJobs()
		return err
	}
	w.agent.Drain(cfg.Shutdown.DrainTimeout)
	select {
	case <-w.agent.Done():
	case <-ctx.Done():
	}
	err = view.table()
	if reportFile == "" {
		fmt.Fprintln(stdout, "power over time and where the joules went: agent demo --report FILE.html writes a page of the first job")
		return err
	}
	if written := w.writeReport(reportFile, jobs[0].ID); written != nil {
		return errors.Join(err, written)
	}
	fmt.Fprintln(stdout, "the first job's page:", reportFile)
	return err
}

// writeReport writes the page of a job to a file.
func (w *worker) writeReport(path, job string) error {
	records, err := w.journal.Find(job)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return fmt.Errorf("writing the report: job %s never came to the agent", job)
	}
	var page bytes.Buffer
	if err := report.HTML(&page, records, len(records)-1); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.WriteFile(path, page.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// idlePatience is how long the demo waits until the agent knows what the idle machine uses:
// trial encodes of its start, then some seconds of idleness. On a busy machine it never
// does.
const idlePatience = 20 * time.Second

// awaitIdleBaseline watches the machine while it is idle, so that the jobs' own joules can be
// told from those that it uses anyway.
func awaitIdleBaseline(ctx context.Context, w *worker, stdout io.Writer) {
	fmt.Fprint(stdout, "watching the idle machine ... ")
	ctx, cancel := context.WithTimeout(ctx, idlePatience)
	defer cancel()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		if snapshot := w.agent.Board().Energy(); snapshot != nil && snapshot.Baseline != nil {
			fmt.Fprintf(stdout, "it uses %.1f W\n\n", float64(snapshot.Baseline.Power))
			return
		}
		select {
		case <-ctx.Done():
			fmt.Fprint(stdout, "it is not idle: the jobs' joules are told with what else runs\n\n")
			return
		case <-tick.C:
		}
	}
}

// demoMaster is a devmaster on a loopback port of this process.
type demoMaster struct {
	*devmaster.Master
	url, key string
	server   *http.Server
}

func startDemoMaster(log *zap.Logger) (*demoMaster, error) {
	key := rand.Text()
	m, err := devmaster.New(devmaster.Config{APIKeys: []string{key}, FenceAttempts: true, Logger: log.Named("demo-master")})
	if err != nil {
		return nil, fmt.Errorf("starting the demo's master: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the demo's master: %w", err), m.Close())
	}
	server := &http.Server{Handler: m.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // ends with close
	return &demoMaster{Master: m, url: "http://" + listener.Addr().String(), key: key, server: server}, nil
}

func (m *demoMaster) close() {
	m.server.Close()
	m.Master.Close()
}

// analysis is the part of a result that the demo shows.
type analysis struct {
	Energy *energy.Account `json:"energy"`
	Scores energy.Scores   `json:"scores"`
}

// readAnalysis decodes the analyzer output of a result.
func readAnalysis(r protocol.JobResult) (analysis, error) {
	var a analysis
	raw, err := json.Marshal(r.AnalyzerOutput)
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return a, fmt.Errorf("reading the analysis of job %s: %w", r.JobID, err)
	}
	return a, nil
}
