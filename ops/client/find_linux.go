package client

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// listening returns the addresses of the control sockets in this network
// namespace on which processes listen.
func listening() ([]string, error) {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return inDirectories(), nil // no /proc, as in a chroot
	}
	return parseTable(string(table)), nil
}

// acceptsConnections is the flag of a listening socket (__SO_ACCEPTCON).
const acceptsConnections = 1 << 16

// parseTable returns the control sockets of a /proc/net/unix: lines with seven
// columns and the address, in which a space can be.
func parseTable(table string) (addresses []string) {
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		var columns [7]string
		for i := range columns {
			line = strings.TrimLeft(line, " ")
			columns[i], line, _ = strings.Cut(line, " ")
		}
		flags, err := strconv.ParseUint(columns[3], 16, 32)
		if err == nil && flags&acceptsConnections != 0 && isControl(line) {
			addresses = append(addresses, line)
		}
	}
	return addresses
}

func peerOf(conn *net.UnixConn) Peer {
	peer := Peer{UID: -1}
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer
	}
	raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			peer = Peer{int(cred.Pid), int(cred.Uid)}
		}
	})
	return peer
}
