// Package reach decides which files, protocols and addresses an input of a job may reach, and
// which inputs are playlists, that is, refer to further inputs. It opens no connections.
package reach

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Policy defines what inputs of jobs may reach. A proxy that the operator configured is exempt,
// as are outputs.
type Policy struct {
	Protocols []string       // jobs.input_protocols
	Roots     []string       // jobs.input_roots
	Networks  []netip.Prefix // jobs.input_networks: allowed beside the public and private ones
	Loopback  bool           // allow_master_as_worker
}

// Refused is the error for an input that the policy does not allow. It is the job's fault, not
// the network's.
type Refused struct {
	What string // such as "address 169.254.169.254 (link-local)"
	Key  string // the configuration key that allows it
}

func (r *Refused) Error() string { return r.What + " is not allowed (" + r.Key + ")" }

// DefaultPolicy returns the policy of a configuration without keys for inputs.
func DefaultPolicy() *Policy {
	return &Policy{Protocols: []string{"file", "http", "https", "rtmp", "rtmps", "srt"}, Roots: []string{"/"}}
}

// metadata are the addresses of cloud metadata services outside the link-local networks.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd00:ec2::23"), // AWS: instances, EKS pods
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
}

// siteLocal is the predecessor of the private IPv6 networks (RFC 3879).
var siteLocal = netip.MustParsePrefix("fec0::/10")

// embedding are the IPv6 networks whose addresses embed an IPv4 address, and the offsets of its
// bytes. In the local-use NAT64 network the operator's prefix length decides them, so that all
// that RFC 6052 defines are listed; those of the other lengths mostly read as 0.0.0.0.
var embedding = []struct {
	prefix  netip.Prefix
	layouts [][4]int
	invert  byte
}{
	{netip.MustParsePrefix("64:ff9b::/96"), [][4]int{last4}, 0},                                                   // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), [][4]int{last4, {6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}}, 0}, // local-use NAT64 (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), [][4]int{{2, 3, 4, 5}}, 0},                                               // 6to4 (RFC 3056)
	{netip.MustParsePrefix("2001::/32"), [][4]int{last4}, 0xff},                                                   // Teredo (RFC 4380)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), [][4]int{last4}, 0},                                                // IPv4-translated (RFC 2765)
	{netip.MustParsePrefix("::/96"), [][4]int{last4}, 0},                                                          // IPv4-compatible (RFC 4291)
}

var last4 = [4]int{12, 13, 14, 15}

// CheckAddr returns a *Refused for an address that inputs must not reach.
func (p *Policy) CheckAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return nil
	}
	if kind := p.forbidden(a); kind != "" {
		return &Refused{What: fmt.Sprintf("address %s (%s)", a, kind), Key: "jobs.input_networks"}
	}
	return nil
}

// forbidden returns what kind of address a is, or nothing if it is allowed.
func (p *Policy) forbidden(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "not an IP address"
	case slices.Contains(metadata, a):
		return "cloud metadata"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a.IsLoopback():
		if p.Loopback {
			return ""
		}
		return "loopback"
	case siteLocal.Contains(a):
		return "site-local"
	case a.IsUnspecified():
		return "unspecified"
	case a.IsMulticast():
		return "multicast"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	}
	if a.Is6() {
		return p.forbiddenEmbedded(a)
	}
	return ""
}

// forbiddenEmbedded is forbidden for the IPv4 address that an IPv6 address embeds.
func (p *Policy) forbiddenEmbedded(a netip.Addr) string {
	bytes := a.As16()
	for _, e := range embedding {
		if !e.prefix.Contains(a) {
			continue
		}
		for _, layout := range e.layouts {
			var v4 [4]byte
			for i, at := range layout {
				v4[i] = bytes[at] ^ e.invert
			}
			if v4 == [4]byte{} && len(e.layouts) > 1 { // of another layout
				continue
			}
			if kind := p.forbidden(netip.AddrFrom4(v4)); kind != "" {
				return kind
			}
		}
	}
	return ""
}

// Control checks the address of a connection after name resolution. It is a
// net.Dialer.ControlContext.
func (p *Policy) Control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &Refused{What: "address " + address, Key: "jobs.input_networks"}
	}
	return p.CheckAddr(ap.Addr())
}

// CheckHost resolves a host and checks all its addresses. An error of the resolver is returned
// unchanged, not as a *Refused.
func (p *Policy) CheckHost(ctx context.Context, host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		return p.CheckAddr(a)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := p.CheckAddr(a); err != nil {
			return err
		}
	}
	return nil
}

// Formats of playlists.
const (
	HLS  = "hls"
	DASH = "dash"
)

// playlistTypes are the media types of playlists (RFC 8216 section 10, ISO/IEC 23009-1).
var playlistTypes = map[string]string{
	"application/vnd.apple.mpegurl": HLS, "application/x-mpegurl": HLS, "audio/mpegurl": HLS, "audio/x-mpegurl": HLS,
	"application/dash+xml": DASH,
}

// IsPlaylist reports whether an input is a playlist, and in which format. It is one if its name
// ends in .m3u8 or .mpd, or if the server's content type or the job's input_format declares it;
// the content does not matter. name is a path without a query.
func IsPlaylist(name, contentType, inputFormat string) (format string, ok bool) {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(path.Ext(name)) {
	case ".m3u8":
		format = HLS
	case ".mpd":
		format = DASH
	default:
		format = playlistTypes[strings.ToLower(strings.TrimSpace(mediaType))]
	}
	switch strings.ToLower(inputFormat) {
	case HLS, "applehttp":
		format = HLS
	case DASH:
		format = DASH
	}
	return format, format != ""
}
