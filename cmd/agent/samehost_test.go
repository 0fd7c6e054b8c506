package main

import (
	"net"
	"testing"
)

func TestOwnAddressesAreRecognized(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	tested := 0
	for _, a := range addresses {
		ip := a.(*net.IPNet).IP
		if ip.IsLinkLocalUnicast() { // not without its interface
			continue
		}
		tested++
		if !isOwnAddress(net.IPAddr{IP: ip}) {
			t.Errorf("%s is an address of this host", ip)
		}
	}
	if tested == 0 {
		t.Fatal("this host has no address, not even a loopback one")
	}
	for _, other := range []string{"192.0.2.1", "2001:db8::1"} { // RFC 5737, RFC 3849
		if isOwnAddress(net.IPAddr{IP: net.ParseIP(other)}) {
			t.Errorf("%s is no address of this host", other)
		}
	}
}
