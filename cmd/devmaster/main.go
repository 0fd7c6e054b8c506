// Command devmaster runs a small master for development, tests and chaos runs.
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

// usageError is an error in the flags, reported with exit status 2.
type usageError struct{ error }

// run executes a command line and returns its exit status.
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
		Short:         "Run a small master for development, tests and demos",
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

// serve runs the master until ctx is done.
func serve(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	o.master.Logger = zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(stderr)), o.level))
	tlsConfig, err := o.tls()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program; choose another address with --listen", o.listen)
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
	printUsage(stdout, o, listener.Addr())

	done := make(chan error, 1)
	go func() {
		if tlsConfig != nil {
			done <- server.ServeTLS(listener, "", "")
			return
		}
		done <- server.Serve(listener)
	}()
	select {
	case err = <-done:
		return err
	case <-ctx.Done():
	}
	shutdownCtx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if server.Shutdown(shutdownCtx) != nil {
		return server.Close()
	}
	return nil
}

// printUsage prints the master's URL and commands to submit a job and start an agent.
func printUsage(w io.Writer, o options, addr net.Addr) {
	scheme, auth := "http", ""
	if o.cert != "" {
		scheme = "https"
	}
	if len(o.master.APIKeys) > 0 {
		auth = ` -H "Authorization: Bearer $MASTER_API_KEY"`
	}
	fmt.Fprintf(w, "devmaster listening on %[1]s://%[2]s\n\n"+
		"submit a job:   curl%[3]s %[1]s://%[2]s/jobs -d '{\"scenario\": \"720p30-h264\", \"parameters\": {\"duration\": 5}}'\n"+
		"start an agent: agent --register --master %[1]s://%[2]s --allow-master-as-worker\n", scheme, addr, auth)
}
