package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
)

// labelMasterAsWorker marks a node that shares its machine with the master.
const labelMasterAsWorker = "master_as_worker"

// checkMasterHost refuses a master on this very host unless that is allowed, and
// labels the node when it is.
func checkMasterHost(ctx context.Context, cfg *configs.Config, log *zap.Logger) error {
	if !masterIsHere(ctx, cfg.Master.URL) {
		return nil
	}
	if !cfg.AllowMasterAsWorker {
		return usageError{errors.New("the master " + cfg.Master.URL + " is this very host: transcoding here takes CPU, memory and disk from it. " +
			"Start the agent on another machine, or, for development, with --allow-master-as-worker (allow_master_as_worker: true)")}
	}
	log.Warn("the master runs on this very host: they contend for CPU, memory and disk", zap.String("master", cfg.Master.URL))
	labels := configs.Labels{labelMasterAsWorker: "true"}
	for k, v := range cfg.Node.Labels {
		labels[k] = v
	}
	cfg.Node.Labels = labels
	return nil
}

// masterIsHere reports whether a URL's host is this machine. A name that does not
// resolve is taken for another machine's: it may do so later.
func masterIsHere(ctx context.Context, rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if own, err := os.Hostname(); err == nil && strings.EqualFold(host, own) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	own, err := ownAddresses()
	if err != nil {
		return false
	}
	for _, a := range addresses {
		if a.IP.IsLoopback() || a.IP.IsUnspecified() || own[a.IP.String()] {
			return true
		}
	}
	return false
}

func ownAddresses() (map[string]bool, error) {
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing this machine's addresses: %w", err)
	}
	own := map[string]bool{}
	for _, a := range interfaces {
		if n, ok := a.(*net.IPNet); ok {
			own[n.IP.String()] = true
		}
	}
	return own, nil
}
