package control

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reportsPeers is true if the system reports the users of connections.
const reportsPeers = true

func peerCreds(fd int) (p peer) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{uid: ^uint32(0), known: true} // has access to nothing
	}
	return peer{pid: int(cred.Pid), uid: cred.Uid, groups: append(peerGroups(fd), cred.Gid), known: true}
}

// peerGroups returns the supplementary groups of the peer when it connected. It
// returns none on a kernel before 4.13.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno != unix.ERANGE || int(size/4) <= len(groups):
			return nil
		}
		groups = make([]uint32, size/4)
	}
}

// hungUp reports whether the peer has closed the connection. A peer that has only
// ended its sending still reads the answer.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
