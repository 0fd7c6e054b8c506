package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/configs"
)

// labelMasterAsWorker marks a node that shares its host with the master.
const labelMasterAsWorker = "master_as_worker"

// checkMasterHost returns a usageError if the master runs on this host and that is not
// allowed. If it is allowed, it logs a warning and labels the node.
func checkMasterHost(ctx context.Context, cfg *configs.Config, log *zap.Logger) error {
	if !isThisHost(ctx, cfg.Master.URL) {
		return nil
	}
	if !cfg.AllowMasterAsWorker {
		return usageError{fmt.Errorf("the master %s runs on this host, and transcoding here would take CPU, memory and disk from it. "+
			"Start the agent on another machine, or, for development, with --allow-master-as-worker (allow_master_as_worker: true)", cfg.Master.URL)}
	}
	log.Warn("the master runs on this host: jobs compete with it for CPU, memory and disk", zap.String("master", cfg.Master.URL))
	labels := configs.Labels{labelMasterAsWorker: "true"}
	maps.Copy(labels, cfg.Node.Labels)
	cfg.Node.Labels = labels
	return nil
}

// resolveTimeout bounds the look-up of the master's addresses at start.
const resolveTimeout = 2 * time.Second

// isThisHost reports whether the host of a URL is this one. A name that does not resolve
// counts as another host: it may resolve later.
func isThisHost(ctx context.Context, rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if own, err := os.Hostname(); err == nil && strings.EqualFold(host, own) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	for _, a := range addresses {
		if a.IP.IsLoopback() || a.IP.IsUnspecified() || isOwnAddress(a) {
			return true
		}
	}
	return false
}

// isOwnAddress reports whether an address belongs to this host: the kernel then chooses it as
// the source of what is sent there. Nothing is sent. Listing the addresses instead would
// need a netlink socket, which the systemd unit does not allow.
func isOwnAddress(a net.IPAddr) bool {
	const discard = 9 // RFC 863; any port would do
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: a.IP, Zone: a.Zone, Port: discard})
	if err != nil {
		return false
	}
	defer conn.Close()
	source, ok := conn.LocalAddr().(*net.UDPAddr)
	return ok && source.IP.Equal(a.IP)
}
