package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/exporters"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Print the effective configuration and where each value comes from",
		Long:    "Print the effective configuration and where each value comes from. Secrets are hidden. It takes\nthe flags of agent run.",
		Example: "  agent config --config /etc/ffmpeg-agent/agent.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := load(cmd)
			if err != nil {
				return err
			}
			for _, e := range loaded.Entries() {
				// A long value moves the origin of its own line only.
				fmt.Fprintf(cmd.OutOrStdout(), "%-28s  %-24s  # %s\n", e.Key+":", e.Value, e.Origin)
			}
			for _, warning := range loaded.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "agent: warning:", warning)
			}
			return nil
		},
	}
	bindHiddenFlags(cmd)
	return cmd
}

// load reads the configuration from the command's flags, the environment and the file.
func load(cmd *cobra.Command) (*configs.Loaded, error) { return configs.Load(sourceOf(cmd)) }

func sourceOf(cmd *cobra.Command) configs.Source {
	return configs.Source{Environ: os.Environ(), Flags: cmd.Flags()}
}

// bindConfigFlag defines --config for commands that have no other setting as a flag.
func bindConfigFlag(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "YAML `file` (default "+configs.DefaultFile+")")
}

// readFiles reads the files that the configuration names, and reports those that are not valid
// as configuration errors, except for the key's: see effective.keyProblem. The certificates are
// only checked.
func readFiles(loaded *configs.Loaded) (effective, error) {
	m, web := loaded.Config.Master, loaded.Config.Exporters.WebConfig
	read := effective{Config: loaded.Config, apiKey: loaded.Config.Master.APIKey}
	var problems []configs.Problem
	check := func(key, path, allowed string, read func() error) {
		if path == "" {
			return
		}
		if err := read(); err != nil {
			problems = append(problems, configs.Problem{Key: key, Value: path, Origin: loaded.Origins[key], Reason: err.Error(), Allowed: allowed})
		}
	}
	check("master.api_key_file", m.APIKeyFile, "a readable file with one line, the key", func() (err error) {
		read.apiKey, err = configs.ReadSecretFile(m.APIKeyFile)
		return err
	})
	if len(problems) > 0 {
		read.keyProblem, problems = &problems[0], nil
	}
	check("master.ca", m.CA, "a readable file with PEM certificates", func() error {
		pem, err := os.ReadFile(m.CA)
		var failed *fs.PathError
		if errors.As(err, &failed) {
			return failed.Err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return errors.New("no PEM certificate found")
		}
		return nil
	})
	check("master.cert", m.Cert, "a readable PEM certificate, and its PEM key in master.key", func() error {
		_, err := tls.LoadX509KeyPair(m.Cert, m.Key)
		return err
	})
	check(webConfigKey, web, "a Prometheus web configuration file", func() (err error) {
		read.web, err = exporters.LoadWebConfig(web)
		return err
	})
	if len(problems) > 0 {
		return effective{}, &configs.Error{Problems: problems}
	}
	return read, nil
}

// exposedSecrets are the files with secrets of a configuration that every user of this machine
// may read or change, by key.
func exposedSecrets(cfg configs.Config) map[string]string {
	exposed := map[string]string{}
	for key, path := range map[string]string{"master.api_key_file": cfg.Master.APIKeyFile, "master.key": cfg.Master.Key} {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o007 != 0 {
			exposed[key] = path
		}
	}
	return exposed
}

// restrictCommand denies access to a file to all but its owner and group.
func restrictCommand(path string) string { return "sudo chmod o= " + path }
