package reach

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestCheckAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"93.184.216.34": "", "10.1.2.3": "", "192.168.0.1": "", "fd12::1": "", "2606:2800::1": "",
		"169.254.169.254": "link-local", "fe80::1%eth0": "link-local", "fd00:ec2::254": "metadata", "100.100.100.200": "metadata",
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"0.0.0.0": "unspecified", "::": "unspecified", "224.0.0.1": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast",
		"64:ff9b::7f00:1": "loopback", "64:ff9b::a9fe:a9fe": "link-local", "2002:a9fe:a9fe::1": "link-local", "::a9fe:a9fe": "link-local", "64:ff9b::808:808": "",
		"168.63.129.16": "metadata", "192.0.0.192": "metadata", "fd20:ce::254": "metadata", "fd00:ec2::23": "metadata", "64:ff9b::a83f:8110": "metadata",
		"64:ff9b:1::7f00:1": "loopback", "64:ff9b:1:a9fe:a9:fe00::": "link-local", "64:ff9b:1:1a9:fe:a9fe::": "link-local", "64:ff9b:1::7f:0:100:0": "loopback",
		"64:ff9b:1::808:808": "", "64:ff9b:1:808:8:800::": "",
		"::ffff:0:7f00:1": "loopback", "::ffff:0:808:808": "", "2001:0:4136:e378:8000:63bf:80ff:fffe": "loopback", "2001:0:4136:e378:8000:63bf:f7f7:f7f7": "",
		"fec0::1": "site-local", "feff::1": "site-local",
	} {
		err := (&Policy{}).CheckAddr(netip.MustParseAddr(addr))
		var refused *Refused
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: got %v, want no error", addr, err)
		case want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "jobs.input_networks")):
			t.Errorf("%s: got %v, want a refusal for %s", addr, err, want)
		}
	}
	if err := (&Policy{Loopback: true}).CheckAddr(netip.MustParseAddr("::1")); err != nil {
		t.Errorf("with Loopback: got %v, want no error", err)
	}
	allowed := &Policy{Networks: []netip.Prefix{netip.MustParsePrefix("169.254.169.0/24")}}
	if err := allowed.CheckAddr(netip.MustParseAddr("::ffff:169.254.169.254")); err != nil {
		t.Errorf("in an allowed network: got %v, want no error", err)
	}
}

func TestIsPlaylist(t *testing.T) {
	for _, test := range []struct{ name, contentType, inputFormat, want string }{
		{"/a.M3U8", "", "", HLS}, {"/a.mpd", "text/plain", "", DASH}, {"/a.mp4", "", "", ""}, {"/a", "application/vnd.apple.mpegurl; charset=utf-8", "", HLS},
		{"/a.mp4", "application/x-mpegURL", "", HLS}, {"/a", "application/dash+xml", "", DASH}, {"/a", "", "hls", HLS}, {"/a.m3u8", "", "dash", DASH},
	} {
		if got, ok := IsPlaylist(test.name, test.contentType, test.inputFormat); got != test.want || ok != (got != "") {
			t.Errorf("%+v: got %q, %t", test, got, ok)
		}
	}
}

func TestParseURL(t *testing.T) {
	p := &Policy{Protocols: []string{"http", "srt"}}
	for given, want := range map[string]string{
		"http://host/It's%20me.mp4?a=b#frag": "http://host/It's%20me.mp4?a=b", "HTTP://host": "http://host", "srt://host:9000": "srt://host:9000",
	} {
		if u, err := p.ParseURL(given); err != nil || u.String() != want {
			t.Errorf("%s: got %v, %v; want %s", given, u, err, want)
		}
	}
	for _, given := range []string{"https://host/", "http:///a", "http://me:hunter2%zz@host/", "host/a"} {
		if u, err := p.ParseURL(given); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, %v; want an error without the password", given, u, err)
		}
	}
}

func TestStreamsOpenNoPort(t *testing.T) {
	p := &Policy{Protocols: []string{"tcp", "tls", "udp", "rtp", "srtp", "rist", "srt", "rtmp"}}
	for _, given := range []string{
		"srt://0.0.0.0:19991?mode=listener", "srt://host:1?x=1&mode=listener", "srt://host:1?mode=caller&mode=listener", "srt://host:1?mode=listener&mode=caller",
		"srt://host:1?mode=rendezvous", "srt://host:1?x=1;mode=listener", "srt://host:1?x=1%23&mode=listener", "SRT://host:1?mode=listener", "srt://host:1?mode=Listener",
		"tcp://host:1?listen", "tcp://host:1?listen=1", "tls://host:1?listen=1", "udp://host:1?localport=2", "udp://host:1?listen", "rtp://host:1?localrtpport=2",
		"srtp://host:1?localrtpport=2", "rist://@host:1", "rist://host:1?rist_profile=0", "srt://host:1|mode=listener",
	} {
		if in, err := p.Input(given, "", "/"); err == nil {
			t.Errorf("%s is allowed as %s", given, in.URL)
		}
	}
	// FFmpeg parses a fragment as options, so it is removed.
	for given, want := range map[string]string{
		"srt://host:19991?x=1#&mode=listener":   "srt://host:19991?x=1",
		"srt://host:19991#?mode=listener":       "srt://host:19991",
		"tcp://host:1#?listen":                  "tcp://host:1",
		"srt://host:1?mode=caller&passphrase=x": "srt://host:1?mode=caller&passphrase=x",
	} {
		in, err := p.Input(given, "", "/")
		if err != nil || in.URL.String() != want {
			t.Errorf("%s: %v, %v; want %s", given, in.URL, err, want)
		}
	}
}
