package main

import (
	"sync"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
)

// apiKey is the bearer key for the master. A key file is read at each call, so that a
// renewed key needs no restart. While the file cannot be read, the last key stays in use.
type apiKey struct {
	file string // empty: the key is fixed
	log  *zap.Logger

	mu     sync.Mutex
	last   string
	failed bool // the last read of the file
}

func newAPIKey(cfg configs.Master, log *zap.Logger) (*apiKey, error) {
	k := &apiKey{file: cfg.APIKeyFile, log: log, last: cfg.APIKey.Reveal()}
	if k.file == "" {
		return k, nil
	}
	secret, err := configs.ReadSecretFile(k.file)
	if err != nil {
		return nil, err
	}
	k.last = secret.Reveal()
	return k, nil
}

func (k *apiKey) current() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == "" {
		return k.last
	}
	secret, err := configs.ReadSecretFile(k.file)
	if err != nil {
		if !k.failed {
			k.log.Warn("could not read the API key file; using the last key", zap.Error(err))
		}
		k.failed = true
		return k.last
	}
	k.failed, k.last = false, secret.Reveal()
	return k.last
}
