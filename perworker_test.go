//go:build linux

package prefork_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { programs["perworker"], programs["perworkerpools"] = perWorker, perWorkerPools }

// perWorker is a program that answers each connection with the slot and the generation that serves it. Its arguments are
// key=value:
//
//	listen    "own" for ListenPerWorker, "shared" for Listen
//	on        network and address, of several listeners by commas; "tcp 127.0.0.1:0"
//	dir       where the files "workers" (how many, for this manager), "gate" (workers accept when they get a lock
//	          on it), and "crash" (a slot, and when its worker ends: "before" it is ready or "after") are looked for
//	deaf      workers up to this generation never accept
//	respawn   ErrRespawnInterval
//	hold      Start waits for a line "go"
//
// The manager reads lines "max N" from its standard input. A worker becomes another program on SIGUSR2.
func perWorker() { perWorkerThat(nil) }

// perWorkerThat obeys more words.
func perWorkerThat(orders map[string]func(string)) {
	args := map[string]string{"listen": "own", "on": "tcp 127.0.0.1:0"}
	for _, arg := range os.Args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		args[key] = value
	}
	respawn, _ := time.ParseDuration(args["respawn"])
	workers, _ := strconv.Atoi(contents(args["dir"], "workers"))
	pm := must(prefork.Config{
		MaxWorkers: workers, ErrRespawnInterval: respawn, MaxSurge: 2, Readiness: prefork.Readiness{Explicit: true}, Observe: sayEvent,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}},
	})
	var lns []net.Listener
	for _, on := range strings.Split(args["on"], ",") {
		network, address, _ := strings.Cut(on, " ")
		listen := pm.ListenPerWorker
		if args["listen"] == "shared" {
			listen = pm.Listen
		}
		ln, err := listen(network, address)
		if err != nil {
			log.Fatal(err)
		}
		lns = append(lns, ln)
	}
	if !prefork.IsWorker() {
		for _, s := range pm.Snapshot().Sockets {
			say("on %s %s per worker %t", s.Network, s.Address, s.PerWorker)
		}
		start := make(chan struct{})
		go obey(pm, start, orders)
		if _, ok := args["hold"]; ok {
			<-start
		}
	}
	deaf, _ := strconv.Atoi(args["deaf"])
	untilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		crash := contents(args["dir"], "crash")
		if crash == fmt.Sprint(w.Slot(), " before") {
			return fmt.Errorf("slot %s", crash)
		}
		become := make(chan os.Signal, 1)
		signal.Notify(become, syscall.SIGUSR2)
		go func() {
			<-become
			log.Fatal(syscall.Exec("/bin/sh", []string{"sh", "-c", "echo another program; exec sleep 1000"}, os.Environ()))
		}()
		w.Ready()
		if crash == fmt.Sprint(w.Slot(), " after") {
			return fmt.Errorf("slot %s", crash)
		}
		if w.Generation() <= deaf {
			<-ctx.Done()
			return nil
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			if awaitGate(args["dir"]) {
				serveSlots(ctx, w, lns)
			}
		}()
		<-ctx.Done()
		if gated(args["dir"]) {
			return nil // it has accepted nothing
		}
		<-served
		return nil
	})
}

// obey does what the test says on standard input.
func obey(pm *prefork.Manager, start chan struct{}, orders map[string]func(string)) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch n, _ := strconv.Atoi(rest); word {
		case "max":
			pm.SetMaxWorkers(n)
		case "go":
			close(start)
		default:
			orders[word](rest)
		}
	}
}

func sayEvent(ev prefork.Event) {
	switch ev := ev.(type) {
	case prefork.StateEvent:
		if ev.Worker.State == prefork.StateReady {
			say("ready %d gen %d pid %d", ev.Worker.Slot, ev.Worker.Generation, ev.Worker.PID)
		}
	case prefork.ExitEvent:
		say("gone %d gen %d", ev.Exit.Slot, ev.Exit.Generation)
	case prefork.DelayEvent:
		say("delay %d", ev.Slot)
	case prefork.RolledEvent:
		say("rolled %d", ev.Generation)
	case prefork.UpgradedEvent:
		say("heir %d", ev.Heir)
	case prefork.UpgradeFailedEvent:
		say("no heir: %v", ev.Err)
	}
}

// contents of a file, "" where there is none.
func contents(dir, name string) string {
	data, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(data))
}

// awaitGate waits until the test opens the gate.
func awaitGate(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "gate"))
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH) == nil
}

func gated(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "gate"))
	if err != nil {
		return true
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// serveSlots answers until ctx ends, and what it has accepted by then.
func serveSlots(ctx context.Context, w *prefork.Worker, lns []net.Listener) {
	var wg sync.WaitGroup
	for i, ln := range lns {
		context.AfterFunc(ctx, func() { ln.Close() })
		wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer conn.Close()
					if _, err := io.ReadFull(conn, make([]byte, 1)); err == nil {
						fmt.Fprintln(conn, w.Slot(), w.Generation(), i, w.ManagerPID())
					}
				})
			}
		})
	}
	wg.Wait()
}

// fleet is a running perWorker.
type fleet struct {
	*preforktest.Program
	t     *testing.T
	addrs []string
	dir   string
	in    *os.File
	stdin *os.File
	gate  *os.File
	heir  int // the pid of the manager after an upgrade
}

// newFleet prepares a perWorker with n workers, whose gate is closed.
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

// startFleet starts one, and waits until it listens.
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

// open lets workers accept.
func (f *fleet) open() { f.gate.Close() }

func (f *fleet) tell(line string) {
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

// end ends the program in order.
func (f *fleet) end() {
	f.t.Helper()
	f.open()
	f.Signal(term)
	wantSuccess(f.t, f.Program)
	f.WaitGone()
}

// queue opens n connections, each with its request under way.
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

// An answer says who has served a connection.
type answer struct{ slot, generation, listener, manager int }

// served reads the answers; each connection that gets none fails the test.
func (f *fleet) served(conns []net.Conn) []answer {
	f.t.Helper()
	var answers []answer
	deadline := time.Now().Add(20 * time.Second) // for all of them
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask makes n requests, some at a time, all of which must be answered, and counts them by slot.
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

// backlogs is how many connections wait on each of the program's listening sockets, by inode.
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

// sockets are the lines of the kernel's table of those with the program's port and in a state.
func (f *fleet) sockets(state string) (lines [][]string) {
	f.t.Helper()
	_, port, _ := net.SplitHostPort(f.addrs[0])
	n, _ := strconv.Atoi(port)
	pid := f.PID()
	if f.heir != 0 {
		pid = f.heir
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid)) // it may be in a network namespace
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
		c := strings.Fields(line)
		if len(c) > 9 && c[3] == state && strings.HasSuffix(c[1], fmt.Sprintf(":%04X", n)) {
			lines = append(lines, c)
		}
	}
	return lines
}

// wantSpread waits until new connections, which nobody accepts, go to n of the sockets, and returns those that it made.
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

// holds are the program's listening sockets that a process has a descriptor of, by inode.
func (f *fleet) holds(pid int) (inodes []string) {
	f.t.Helper()
	fds, err := preforktest.Descriptors(pid)
	if err != nil {
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

// ownSocket is the inode of a worker's socket, where it keeps no other.
func (f *fleet) ownSocket(pid int) string {
	f.t.Helper()
	var all []string
	preforktest.WaitFor(f.t, "a worker with one socket", func() bool {
		all = f.holds(pid)
		return len(all) == 1
	})
	return all[0]
}

// eachMode runs a test with a socket for each worker and with one for all.
func eachMode(t *testing.T, test func(t *testing.T, listen string)) {
	for _, listen := range []string{"own", "shared"} {
		t.Run(listen, func(t *testing.T) { test(t, "listen="+listen) })
	}
}
