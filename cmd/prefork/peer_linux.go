package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openPeer returns the process that listens on a socket, with a handle that is not
// of its pid: the pid may have been used again since, and a process in another PID
// namespace has none here. It returns os.ErrProcessDone if that process has
// exited, although another one has the socket.
func openPeer(socket string) (*process, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var p *process
	if ctl := raw.Control(func(fd uintptr) { p, err = peerOf(int(fd), socket) }); ctl != nil {
		err = ctl
	}
	return p, err
}

func peerOf(conn int, socket string) (*process, error) {
	cred, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	p := &process{pid: int(cred.Pid), uid: int(cred.Uid)}
	switch p.fd, err = peerPIDFD(conn); err {
	case nil:
		return p.alive()
	case unix.ENOPROTOOPT:
		return openHolder(p, socket)
	case unix.ESRCH, unix.EINVAL:
		return nil, os.ErrProcessDone
	}
	return nil, os.NewSyscallError("getsockopt", err)
}

// peerPIDFD returns a handle of the process at the other end of a connection. It
// needs Linux 6.5. Tests have another.
var peerPIDFD = func(conn int) (int, error) {
	return unix.GetsockoptInt(conn, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
}

// openHolder opens a process by its pid, if it has the socket. So it is the one
// that listens, unless that pid was used again by another with the socket.
func openHolder(p *process, socket string) (*process, error) {
	if p.pid <= 0 {
		return nil, errors.New("the manager is in another PID namespace")
	}
	var err error
	p.fd, err = unix.PidfdOpen(p.pid, 0)
	switch {
	case err == unix.ESRCH, err == unix.EINVAL:
		return nil, os.ErrProcessDone
	case err != nil:
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if !hasSocket(p.pid, socket) {
		p.close()
		return nil, fmt.Errorf("process %d has not the socket %s: its pid may have been used again", p.pid, socket)
	}
	return p.alive()
}

// alive returns p, or os.ErrProcessDone if it has exited.
func (p *process) alive() (*process, error) {
	polled := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(polled, 0); n == 0 || err != nil {
		return p, nil
	}
	p.close()
	return nil, os.ErrProcessDone
}

// hasSocket reports whether a process has a socket with an address.
func hasSocket(pid int, address string) bool {
	table, err := os.Open("/proc/net/unix")
	if err != nil {
		return false
	}
	defer table.Close()
	sockets := make(map[string]bool) // links to them
	for lines := bufio.NewScanner(table); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path
		f := strings.Fields(lines.Text())
		if len(f) > 7 && strings.HasSuffix(lines.Text(), " "+address) {
			sockets["socket:["+f[6]+"]"] = true
		}
	}
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	names, _ := os.ReadDir(dir)
	for _, name := range names {
		if link, err := os.Readlink(dir + name.Name()); err == nil && sockets[link] {
			return true
		}
	}
	return false
}
