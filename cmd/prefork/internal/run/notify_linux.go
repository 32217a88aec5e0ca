package run

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A notifySocket receives the notifications of workers, as systemd does.
type notifySocket struct {
	conn  *net.UnixConn
	ready func(pid int) bool

	mu    sync.Mutex
	early map[int]bool // processes that were ready before the pool knew them
}

// maxEarly bounds the set of early processes: any process may send a message.
const maxEarly = 64

// listenNotify opens the socket. It is abstract: workers of any user, and below
// any root directory, can send to it. ready is called with the pid of a process
// that is ready, and reports whether it is a worker.
func listenNotify(ready func(pid int) bool) (*notifySocket, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: fmt.Sprintf("@prefork/notify/%d", os.Getpid())})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	n := &notifySocket{conn: conn, ready: ready, early: make(map[int]bool)}
	go n.receive()
	return n, nil
}

func (n *notifySocket) address() string { return n.conn.LocalAddr().String() }

func (n *notifySocket) close() { n.conn.Close() }

func (n *notifySocket) receive() {
	text, oob := make([]byte, 4096), make([]byte, 1024)
	for {
		size, oobSize, _, _, err := n.conn.ReadMsgUnix(text, oob)
		if err != nil {
			return // it is closed
		}
		pid := sender(oob[:oobSize])
		for line := range bytes.Lines(text[:size]) {
			if pid > 0 && string(bytes.TrimSpace(line)) == "READY=1" {
				n.report(pid)
			}
		}
	}
}

// sender returns the pid that the kernel has attached to a message, and closes the
// descriptors that came with it: systemd-notify waits for that.
func sender(oob []byte) (pid int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid
}

// report makes the worker ready whose process, or a process of whose group, has
// sent READY=1. The group of a process that has exited and was reaped is not known:
// as with systemd, a helper has to live until its message was read, for which
// systemd-notify waits.
func (n *notifySocket) report(pid int) {
	group, err := syscall.Getpgid(pid)
	if err != nil {
		group = pid
	}
	if n.ready(pid) || n.ready(group) {
		return
	}
	n.mu.Lock()
	if len(n.early) >= maxEarly {
		clear(n.early)
	}
	n.early[pid], n.early[group] = true, true
	n.mu.Unlock()
	_ = n.ready(pid) || n.ready(group) // it may have been spawned since
}

// spawned makes a worker ready that has reported it before the pool knew it.
func (n *notifySocket) spawned(pid int) {
	n.mu.Lock()
	early := n.early[pid]
	delete(n.early, pid)
	n.mu.Unlock()
	if early {
		n.ready(pid)
	}
}
