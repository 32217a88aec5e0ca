//go:build darwin || freebsd

package control

import "golang.org/x/sys/unix"

const reportsPeers = true

func peerCreds(fd int) (p peer) {
	cred, err := unix.GetsockoptXucred(fd, solLocal, unix.LOCAL_PEERCRED)
	if err != nil {
		return peer{uid: ^uint32(0), known: true}
	}
	n := min(max(int(cred.Ngroups), 0), len(cred.Groups))
	return peer{uid: cred.Uid, groups: append([]uint32(nil), cred.Groups[:n]...), known: true}
}

func hungUp(int) bool { return true }

// solLocal is the level of options of unix sockets.
const solLocal = 0
