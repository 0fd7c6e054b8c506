package control

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is the kernel's limit of groups of a process (NGROUPS_MAX).
const maxGroups = 65536

func peerOf(conn net.Conn) (p Peer) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return Peer{}
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		p = Peer{Known: true, PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
		groups := make([]uint32, maxGroups)
		size := uint32(len(groups)) * 4
		if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0); errno == 0 {
			p.Groups = groups[:size/4]
		}
	})
	return p
}
