package main

import (
	"sync"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
)

// apiKey is the bearer key. From a file it is read at each call, so that a renewed
// key needs no restart; while the file cannot be read the last key goes on.
type apiKey struct {
	file string
	log  *zap.Logger

	mu     sync.Mutex
	last   string
	failed bool
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
			k.log.Warn("the key file cannot be read any more; going on with the last key", zap.Error(err))
		}
		k.failed = true
		return k.last
	}
	k.failed, k.last = false, secret.Reveal()
	return k.last
}
