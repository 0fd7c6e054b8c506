package fetch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

var errNoPeer = errors.New("no such connection on this machine")

// peerUser returns the user id of the process at the other end of an IPv4 connection on this
// machine; -1 with an error if it cannot be determined.
func peerUser(conn net.Conn) (int, error) {
	table, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		return -1, err
	}
	defer table.Close()
	return socketUser(table, conn.RemoteAddr(), conn.LocalAddr())
}

// socketUser finds the owner of the socket between two addresses in the kernel's table of TCP
// sockets (proc(5), /proc/net/tcp). A socket that its process has closed has no inode, and
// user 0.
func socketUser(table io.Reader, local, remote net.Addr) (int, error) {
	from, err := tableAddress(local)
	if err != nil {
		return -1, err
	}
	to, err := tableAddress(remote)
	if err != nil {
		return -1, err
	}
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		const localAt, remoteAt, uidAt, inodeAt = 1, 2, 7, 9
		fields := strings.Fields(lines.Text())
		if len(fields) <= inodeAt || fields[localAt] != from || fields[remoteAt] != to || fields[inodeAt] == "0" {
			continue
		}
		uid, err := strconv.Atoi(fields[uidAt])
		if err != nil {
			return -1, fmt.Errorf("parsing the table of TCP sockets: %w", err)
		}
		return uid, nil
	}
	if err := lines.Err(); err != nil {
		return -1, err
	}
	return -1, errNoPeer
}

// tableAddress writes an address as the table does: the IPv4 address as a number in the byte
// order of this machine, and the port.
func tableAddress(a net.Addr) (string, error) {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil || !at.Addr().Unmap().Is4() {
		return "", errNoPeer
	}
	v4 := at.Addr().Unmap().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(v4[:]), at.Port()), nil
}
