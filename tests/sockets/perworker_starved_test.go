//go:build linux

package sockets_test

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// starve leaves a worker without a file descriptor for a connection.
func (f *fleet) starve(pid int) {
	f.t.Helper()
	syscall.Kill(pid, syscall.SIGTTIN)
	f.Expect(`^starved \d+$`)
}

// matches counts the lines that match a pattern.
func (f *fleet) matches(pattern string) (n int) {
	re := regexp.MustCompile(pattern)
	for _, line := range f.Lines() {
		if re.MatchString(line) {
			n++
		}
	}
	return n
}

// The workers that would serve the queue of a crashed slot have no descriptor
// left to receive its socket. Another one gets it, and the log has a line for
// each of them.
func TestKeeperWithoutDescriptors(t *testing.T) {
	f := startFleet(t, 4, "respawn=1h")
	pids := f.ready(4, 1)
	conns := f.wantSpread(4) // each worker has its own socket only
	for _, slot := range []int{0, 1} {
		f.starve(pids[slot])
	}
	syscall.Kill(pids[2], syscall.SIGKILL)
	f.Expect(`^delay 2$`)
	own := f.ownSocket(pids[0])
	preforktest.WaitFor(t, "a worker that has the socket of slot 2", func() bool { return len(f.holds(pids[3])) == 2 })
	if f.ownSocket(pids[0]) != own {
		t.Error("a worker without descriptors has received one")
	}
	f.open()
	for _, a := range f.served(conns) {
		if a.slot != 3 {
			t.Errorf("served by slot %d", a.slot)
		}
	}
	f.end()
	if n := f.matches(`WARN worker cannot take the socket of another slot`); n < 1 || n > 2 {
		t.Errorf("%d warnings, want one for each worker that could not:\n%s", n, strings.Join(f.Lines(), "\n"))
	}
}

// A worker has no descriptor left for its next connection. Others serve its
// queue, and it gets no new connections.
func TestWorkerWithoutDescriptors(t *testing.T) {
	f := startFleet(t, 3)
	pids := f.ready(3, 1)
	conns := f.wantSpread(3)
	f.starve(pids[1])
	f.open()
	for _, a := range f.served(conns) {
		if a.slot == 1 {
			t.Error("served by the worker without descriptors")
		}
	}
	f.ask(100)
	f.end()
	if n := f.matches(fmt.Sprintf(`WARN worker cannot accept connections.* pid=%d`, pids[1])); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// No worker has a descriptor left. The log has one line for each, and the
// connections are served as soon as there is a worker that can.
func TestAllWorkersWithoutDescriptors(t *testing.T) {
	f := startFleet(t, 2, "respawn=-1s")
	pids := f.ready(2, 1)
	conns := f.wantSpread(2) // each worker has its own socket only
	for _, pid := range pids {
		f.starve(pid)
	}
	f.open()
	f.ExpectN(2, `WARN worker cannot (accept connections|take the socket)`)
	syscall.Kill(pids[1], syscall.SIGKILL)
	f.served(conns)
	f.ask(50)
	f.end()
	if n := f.matches(`WARN worker cannot`); n != 2 {
		t.Errorf("%d warnings, want 2", n)
	}
}
