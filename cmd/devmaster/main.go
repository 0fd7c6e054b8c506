// Command devmaster runs the small master of package devmaster: something for
// an agent to talk to on a developer's machine, in tests and under chaos.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"ffmpeg-agent/internal/devmaster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake in the flags: exit status 2.
type usageError struct{ error }

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command()
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "devmaster:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "devmaster",
		Short:         "A small master for ffmpeg agents: development, tests, demonstrations",
		Example:       "  devmaster --listen 127.0.0.1:8080 --api-key secret --state master.json --results-dir results",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	o.bind(cmd.Flags())
	return cmd
}

// serve runs the master until ctx ends.
func serve(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	o.master.Logger = zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(stderr)), o.level))
	tlsConfig, err := o.tls()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program; choose another address with --listen", o.listen)
	}
	if err != nil {
		return err
	}
	master, err := devmaster.New(o.master)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, master.Close()) }()
	server := &http.Server{
		Handler:           master.Handler(),
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		ErrorLog:          zap.NewStdLog(o.master.Logger),
	}
	greet(stdout, o, listener.Addr())

	ended := make(chan error, 1)
	go func() {
		if tlsConfig != nil {
			ended <- server.ServeTLS(listener, "", "")
			return
		}
		ended <- server.Serve(listener)
	}()
	select {
	case err = <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		return server.Close()
	}
	return nil
}

// greet says where the master listens and how to give it a job.
func greet(w io.Writer, o options, addr net.Addr) {
	scheme, auth := "http", ""
	if o.cert != "" {
		scheme = "https"
	}
	if len(o.master.APIKeys) > 0 {
		auth = ` -H "Authorization: Bearer $MASTER_API_KEY"`
	}
	fmt.Fprintf(w, "devmaster listens on %[1]s://%[2]s\n\n"+
		"post a job:   curl%[3]s %[1]s://%[2]s/jobs -d '{\"scenario\": \"720p30-h264\", \"parameters\": {\"duration\": 5}}'\n"+
		"start a node: agent --register --master %[1]s://%[2]s --allow-master-as-worker\n", scheme, addr, auth)
}
