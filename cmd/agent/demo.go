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

var errDemo = errors.New("not all demo jobs completed")

func newDemo() *cobra.Command {
	var input, reportFile string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run three transcodes with an embedded master and show their energy",
		Long: `Start a master and a complete agent in this process, which talk over HTTP, run three
transcodes (H.264, H.265, VP9), and show their progress and energy use. Everything is
removed afterwards except the file that --report writes.`,
		Example: "  agent demo\n  agent demo --input holiday.mov --report holiday.html",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("input") && input == "" {
				return usageError{errors.New("--input: must not be empty")}
			}
			return demo(cmd.Context(), input, reportFile, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "transcode this `file` instead of a test pattern")
	cmd.Flags().StringVar(&reportFile, "report", "", "write the report of the first job to this HTML `file`")
	return cmd
}

// demoJobs takes some seconds a job on two cores.
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
		return fmt.Errorf("creating the demo's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	tty := stdout
	stdout = &interruptibleWriter{out: stdout, interrupted: ctx.Done()}
	log := newLogger(configs.Log{Level: "error", Format: "console"}, stderr)
	defer log.close()
	m, err := startDemoMaster(log.Logger)
	if err != nil {
		return err
	}
	defer m.close()
	w, err := newWorker(fixedConfiguration(demoConfig(cfg, dir, m)), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Fprintf(stdout, "ffmpeg-agent %s\nthree transcodes by an agent of the master %s\n\n", version, m.url)

	awaitBaseline(ctx, w, stdout)
	jobs := make([]protocol.Job, len(requests))
	for i, request := range requests {
		if jobs[i], err = m.Submit(request); err != nil {
			return fmt.Errorf("submitting a demo job: %w", err)
		}
	}
	view := newDemoView(stdout, tty, w, m.Master, jobs)
	if err := view.watch(ctx); err != nil {
		// FFmpeg has to end before its directory is removed.
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
		fmt.Fprintln(stdout, "for a report with the power over time: agent demo --report FILE.html")
		return err
	}
	if reportErr := w.writeReport(reportFile, jobs[0].ID); reportErr != nil {
		return errors.Join(err, reportErr)
	}
	fmt.Fprintln(stdout, "report of the first job:", reportFile)
	return err
}

// demoConfig is the configuration for an agent of the demo's master. It serves no ports,
// because a real agent may run on this machine.
func demoConfig(cfg configs.Config, dataDir string, m *demoMaster) configs.Config {
	cfg.Master = configs.Master{URL: m.url, APIKey: configs.NewSecret(m.key), UnavailableAfter: cfg.Master.UnavailableAfter}
	cfg.DataDir, cfg.Register = dataDir, true
	cfg.MetricsPort, cfg.Exporters = 0, configs.Exporters{}
	cfg.PollInterval, cfg.HeartbeatInterval = 500*time.Millisecond, time.Second
	return cfg
}

// writeReport writes the HTML report of a job's last attempt.
func (w *worker) writeReport(path, job string) error {
	records, err := w.journal.Find(job)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return fmt.Errorf("writing the report: job %s is not in the journal", job)
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

// The idle baseline takes some readings without load after the trial encodes. A busy machine
// has none.
const (
	trialsTimeout    = 30 * time.Second
	baselineTimeout  = 12 * time.Second
	baselineReadings = 12 // a slow machine needs longer for as many
	readingsTimeout  = time.Minute
)

// awaitBaseline waits for the idle baseline, without which no net energy is known.
func awaitBaseline(ctx context.Context, w *worker, stdout io.Writer) {
	fmt.Fprint(stdout, "measuring idle power ... ")
	wait := baselineWait{began: time.Now()}
	tick := time.NewTicker(redrawInterval)
	defer tick.Stop()
	for {
		snapshot := w.agent.Snapshots().Energy()
		if snapshot != nil && snapshot.Baseline != nil {
			fmt.Fprintf(stdout, "%.1f W\n\n", float64(snapshot.Baseline.Power))
			return
		}
		if why := wait.over(time.Now(), w.agent.TrialsDone(), readings(snapshot)); why != "" {
			fmt.Fprintf(stdout, "%s; net energy is not available\n\n", why)
			return
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(stdout)
			return
		case <-tick.C:
		}
	}
}

// readings counts the samples of the sampler that has the most.
func readings(s *energy.Snapshot) (n int) {
	if s != nil {
		for _, sampler := range s.Samplers {
			n = max(n, sampler.Samples)
		}
	}
	return n
}

// baselineWait decides how long the demo waits for a baseline.
type baselineWait struct {
	began  time.Time // of what is waited for
	trials bool      // they are done
	had    int       // readings at their end
}

// over is why the wait is over; empty while it is not.
func (b *baselineWait) over(now time.Time, trialsDone bool, readings int) string {
	if !b.trials && trialsDone {
		b.trials, b.began, b.had = true, now, readings
	}
	waited, taken := now.Sub(b.began), readings-b.had
	switch {
	case !b.trials && waited >= trialsTimeout:
		return fmt.Sprintf("the trial encodes are not done after %s", trialsTimeout)
	case !b.trials || waited < baselineTimeout:
		return ""
	case taken == 0:
		return "the power sensors give no readings"
	case taken >= baselineReadings || waited >= readingsTimeout:
		return "the machine is not idle"
	}
	return ""
}

// demoMaster is a devmaster in this process, on a loopback port.
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
	go server.Serve(listener) //nolint:errcheck // returns after close
	return &demoMaster{Master: m, url: "http://" + listener.Addr().String(), key: key, server: server}, nil
}

func (m *demoMaster) close() {
	m.server.Close()
	m.Master.Close()
}

// analysis is the part of the analyzer output that the demo shows.
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
