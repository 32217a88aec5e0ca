//go:build linux

package sockets_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// fleet is a running perWorker program.
type fleet struct {
	*preforktest.Program
	t         *testing.T
	addrs     []string
	dir       string
	in        *os.File
	stdin     *os.File
	gate      *os.File
	successor int // the pid of the manager after an upgrade
}

// newFleet prepares a perWorker program with n workers and a closed gate.
func newFleet(t *testing.T, n int, args ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir()}
	f.write("workers", strconv.Itoa(n))
	gate, err := os.Create(filepath.Join(f.dir, "gate"))
	if err != nil {
		t.Fatal(err)
	}
	f.gate = gate
	t.Cleanup(f.open)
	if err := syscall.Flock(int(gate.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	f.Program = preforktest.New(t, "perworker", append([]string{"dir=" + f.dir}, args...)...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	f.in, f.stdin, f.Cmd.Stdin = w, r, r
	t.Cleanup(func() { r.Close(); w.Close() })
	return f
}

// startFleet starts a fleet and waits until it listens.
func startFleet(t *testing.T, n int, args ...string) *fleet {
	t.Helper()
	f := newFleet(t, n, args...)
	f.Start()
	f.listens()
	return f
}

func (f *fleet) listens() {
	f.t.Helper()
	f.addrs = append(f.addrs, f.Expect(`^on \S+ (\S+) per worker`)[1])
}

func (f *fleet) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// open opens the gate: workers accept.
func (f *fleet) open() { f.gate.Close() }

func (f *fleet) command(line string) {
	f.t.Helper()
	if _, err := fmt.Fprintln(f.in, line); err != nil {
		f.t.Fatal(err)
	}
}

// ready waits for n workers of a generation, and returns their pids by slot.
func (f *fleet) ready(n, generation int) map[int]int {
	f.t.Helper()
	pids := make(map[int]int)
	for _, m := range f.ExpectN(n, fmt.Sprintf(`^ready (\d+) gen %d pid (\d+)$`, generation)) {
		slot, _ := strconv.Atoi(m[1])
		pids[slot], _ = strconv.Atoi(m[2])
	}
	return pids
}

// end shuts the program down.
func (f *fleet) end() {
	f.t.Helper()
	f.open()
	f.Signal(term)
	testprog.ExpectSuccess(f.t, f.Program)
	f.WaitGone()
}

// queue opens n connections, each with a request in flight.
func (f *fleet) queue(n int) []net.Conn { return queueOn(f.t, "tcp", f.addrs[0], n) }

func queueOn(t *testing.T, network, addr string, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, 0, n)
	for range n {
		conn, err := net.DialTimeout(network, addr, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

// An answer names the worker that served a connection.
type answer struct{ slot, generation, listener, manager int }

// served reads the answers. Each connection without one fails the test.
func (f *fleet) served(conns []net.Conn) []answer {
	f.t.Helper()
	var answers []answer
	deadline := time.Now().Add(20 * time.Second) // for all connections together
	lost := 0
	for _, conn := range conns {
		var a answer
		conn.SetDeadline(later(deadline, time.Now().Add(100*time.Millisecond)))
		if _, err := fmt.Fscanln(conn, &a.slot, &a.generation, &a.listener, &a.manager); err != nil {
			if lost++; lost == 1 {
				f.t.Errorf("a connection is not served: %v", err)
			}
			continue
		}
		conn.Close()
		answers = append(answers, a)
	}
	if lost > 0 {
		f.t.Fatalf("%d of %d connections served", len(conns)-lost, len(conns))
	}
	return answers
}

// wantSlots waits until n slots have answered requests: the manager reports
// that a worker is ready before it steers connections to it.
func (f *fleet) wantSlots(network, addr string, n int) (answers []answer) {
	f.t.Helper()
	slots := make(map[int]bool)
	preforktest.WaitFor(f.t, fmt.Sprint("answers of ", n, " slots"), func() bool {
		for _, a := range f.served(queueOn(f.t, network, addr, 20)) {
			slots[a.slot] = true
			answers = append(answers, a)
		}
		return len(slots) >= n
	})
	return answers
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask makes n requests, several at a time, and counts them by slot. All of them
// must be answered.
func (f *fleet) ask(n int) map[int]int {
	f.t.Helper()
	counts := make(map[int]int)
	for ; n > 0; n -= min(n, 50) {
		for _, a := range f.served(f.queue(min(n, 50))) {
			counts[a.slot]++
		}
	}
	return counts
}

// backlogs returns the number of connections that wait on each of the program's
// listening sockets, by inode.
func (f *fleet) backlogs() map[string]int {
	f.t.Helper()
	backlogs := make(map[string]int)
	for _, c := range f.sockets("0A") {
		_, rx, _ := strings.Cut(c[4], ":")
		queued, _ := strconv.ParseInt(rx, 16, 64)
		backlogs[c[9]] = int(queued)
	}
	return backlogs
}

// sockets returns the lines of the kernel's table for the program's port in a
// state.
func (f *fleet) sockets(state string) (lines [][]string) {
	f.t.Helper()
	_, port, _ := net.SplitHostPort(f.addrs[0])
	n, _ := strconv.Atoi(port)
	pid := f.PID()
	if f.successor != 0 {
		pid = f.successor
	}
	// the program may be in a network namespace
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when
		// retrnsmt uid timeout inode
		c := strings.Fields(line)
		if len(c) > 9 && c[3] == state && strings.HasSuffix(c[1], fmt.Sprintf(":%04X", n)) {
			lines = append(lines, c)
		}
	}
	return lines
}

// wantSpread waits until new connections, which no worker accepts, go to n of
// the sockets. It returns the connections that it made.
func (f *fleet) wantSpread(n int) (conns []net.Conn) {
	f.t.Helper()
	preforktest.WaitFor(f.t, fmt.Sprint("connections on ", n, " sockets"), func() bool {
		before := f.backlogs()
		conns = append(conns, f.queue(100)...)
		grown := 0
		for inode, count := range f.backlogs() {
			if count > before[inode] {
				grown++
			}
		}
		return grown == n
	})
	return conns
}

// holds returns the inodes of the program's listening sockets that a process
// has open.
func (f *fleet) holds(pid int) (inodes []string) {
	f.t.Helper()
	fds, err := preforktest.Descriptors(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has exited
	} else if err != nil {
		f.t.Fatal(err)
	}
	backlogs := f.backlogs()
	for _, name := range fds {
		inode := strings.TrimSuffix(strings.TrimPrefix(name, "socket:["), "]")
		if _, ok := backlogs[inode]; ok && !slices.Contains(inodes, inode) {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}

// ownSocket returns the inode of a worker's socket if it keeps no other.
func (f *fleet) ownSocket(pid int) string {
	f.t.Helper()
	var all []string
	preforktest.WaitFor(f.t, "a worker with one socket", func() bool {
		all = f.holds(pid)
		return len(all) == 1
	})
	return all[0]
}

// eachMode runs a test with a socket for each worker, and with one for all.
func eachMode(t *testing.T, test func(t *testing.T, listen string)) {
	for _, listen := range []string{"own", "shared"} {
		t.Run(listen, func(t *testing.T) { test(t, "listen="+listen) })
	}
}
