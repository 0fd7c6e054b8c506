package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"ffmpeg-agent/internal/devmaster"
)

// options are the values of the flags.
type options struct {
	master                                devmaster.Config
	listen, cert, key, clientCA, logLevel string
	level                                 zapcore.Level
	likeField                             bool
	staleAfter, liveStaleAfter            time.Duration
	flags                                 *pflag.FlagSet
}

func (o *options) bind(f *pflag.FlagSet) {
	o.flags = f
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` to listen on")
	f.StringArrayVar(&o.master.APIKeys, "api-key", nil, "accept this bearer `key`, repeatable; also MASTER_API_KEY (default: no key required)")
	f.DurationVar(&o.master.UnavailableAfter, "unavailable-after", devmaster.DefaultUnavailableAfter, "reassign a node's jobs after this long without a heartbeat")
	f.IntVar(&o.master.MaxRetries, "max-retries", devmaster.DefaultMaxRetries, "maximum number of retries of a failed job")
	f.StringVar(&o.master.StateFile, "state", "", "`file` for the state (default: memory only)")
	f.StringVar(&o.master.ResultsDir, "results-dir", "", "`directory` for accepted results")
	f.BoolVar(&o.master.FenceAttempts, "fence", true, "reject results of a stale node or attempt with 409; false behaves like an older master and is the default with --like-field")
	f.BoolVar(&o.likeField, "like-field", false, "deviate from the protocol like masters in use: no fencing, facts only from a node's first registration, nodes that stay offline or unreadable until they register again, jobs re-queued while they run")
	f.DurationVar(&o.staleAfter, "stale-after", devmaster.DefaultStaleAfter, "with --like-field, re-queue a running job of the queues default and batch after this long")
	f.DurationVar(&o.liveStaleAfter, "live-stale-after", devmaster.DefaultLiveStaleAfter, "with --like-field, re-queue a running job of the queue live after this long, unless it is its node's current job")
	f.StringVar(&o.cert, "tls-cert", "", "certificate `file`; serves HTTPS together with --tls-key")
	f.StringVar(&o.key, "tls-key", "", "private key `file`")
	f.StringVar(&o.clientCA, "client-ca", "", "CA `file`; requires a client certificate signed by it")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error; debug includes heartbeats and idle polls")
}

// complete validates the flags and completes the configuration.
func (o *options) complete(args []string) (err error) {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen %s: must be HOST:PORT", o.listen)
	}
	if o.level, err = zapcore.ParseLevel(o.logLevel); err != nil {
		return fmt.Errorf("--log-level %s: must be debug, info, warn or error", o.logLevel)
	}
	m := &o.master
	switch {
	case m.UnavailableAfter <= 0:
		return fmt.Errorf("--unavailable-after %v: must be positive", m.UnavailableAfter)
	case o.staleAfter <= 0:
		return fmt.Errorf("--stale-after %v: must be positive", o.staleAfter)
	case o.liveStaleAfter <= 0:
		return fmt.Errorf("--live-stale-after %v: must be positive", o.liveStaleAfter)
	case m.MaxRetries < 0:
		return fmt.Errorf("--max-retries %d: must not be negative", m.MaxRetries)
	case m.MaxRetries == 0:
		m.MaxRetries = -1 // no retries; 0 would mean the default
	}
	for _, name := range []string{"stale-after", "live-stale-after"} {
		if o.flags.Changed(name) && !o.likeField {
			return fmt.Errorf("--%s needs --like-field", name)
		}
	}
	if o.likeField {
		m.Habits = devmaster.FieldHabits()
		m.Habits.StaleAfter, m.Habits.LiveStaleAfter = o.staleAfter, o.liveStaleAfter
		m.FenceAttempts = m.FenceAttempts && o.flags.Changed("fence")
	}
	switch {
	case (o.cert == "") != (o.key == ""):
		return errors.New("--tls-cert and --tls-key must be used together")
	case o.clientCA != "" && o.cert == "":
		return errors.New("--client-ca requires --tls-cert and --tls-key")
	case slices.Contains(m.APIKeys, ""):
		return errors.New("--api-key: must not be empty")
	}
	if key := os.Getenv("MASTER_API_KEY"); key != "" && len(m.APIKeys) == 0 {
		m.APIKeys = []string{key}
	}
	return nil
}

// tls returns the TLS configuration, or nil for plain HTTP.
func (o *options) tls() (*tls.Config, error) {
	if o.cert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("loading --tls-cert and --tls-key: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if o.clientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.clientCA)
	if err != nil {
		return nil, fmt.Errorf("loading --client-ca: %w", err)
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--client-ca %s: no certificate in file", o.clientCA)
	}
	return c, nil
}
