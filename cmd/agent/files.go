package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"ffmpeg-agent/configs"
)

// checkFiles reads the files that settings name before anything is made or started: a
// wrong one is a wrong setting.
func checkFiles(loaded *configs.Loaded) error {
	m := loaded.Config.Master
	var problems []configs.Problem
	check := func(key, path, allowed string, read func() error) {
		if path == "" {
			return
		}
		if err := read(); err != nil {
			problems = append(problems, configs.Problem{Key: key, Value: path, Origin: loaded.Origins[key], Reason: err.Error(), Allowed: allowed})
		}
	}
	check("master.api_key_file", m.APIKeyFile, "a readable file with one line, the key", func() error {
		_, err := configs.ReadSecretFile(m.APIKeyFile)
		return err
	})
	check("master.ca", m.CA, "a readable PEM file with certificates", func() error {
		pem, err := os.ReadFile(m.CA)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			err = errors.New("it holds no certificate in PEM")
		}
		return err
	})
	check("master.cert", m.Cert, "a readable PEM certificate, and master.key the PEM key that belongs to it", func() error {
		_, err := tls.LoadX509KeyPair(m.Cert, m.Key)
		return err
	})
	if len(problems) > 0 {
		return &configs.Error{Problems: problems}
	}
	return nil
}
