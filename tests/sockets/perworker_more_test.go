//go:build linux

package sockets_test

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// Each worker gets its share of new connections. A slot without a ready worker
// gets none.
func TestPerWorkerShares(t *testing.T) {
	f := startFleet(t, 4, "respawn=1h")
	pids := f.ready(4, 1)
	sockets := make([]string, 4)
	for slot, pid := range pids {
		sockets[slot] = f.ownSocket(pid)
	}
	conns := f.queue(4000)
	before := f.backlogs()
	t.Logf("of 4,000 connections: %v", before)
	for slot, inode := range sockets {
		if n := before[inode]; n < 500 || n > 2000 {
			t.Errorf("slot %d got %d of 4,000", slot, n)
		}
	}
	for _, conn := range conns[:1000] {
		conn.Close() // room in the queues
	}
	syscall.Kill(pids[1], syscall.SIGKILL)
	f.Expect(`^delay 1$`)
	preforktest.WaitFor(t, "another worker that has the socket of slot 1", func() bool {
		return len(f.holds(pids[0]))+len(f.holds(pids[2]))+len(f.holds(pids[3])) == 4
	})
	f.queue(1000)
	after := f.backlogs()
	t.Logf("1,000 more: %v", after)
	if after[sockets[1]] != before[sockets[1]] {
		t.Errorf("a slot without a worker got %d of 1,000", after[sockets[1]]-before[sockets[1]])
	}
	f.open()
	f.served(conns[1000:])
	f.end()
}

// One worker keeps the sockets of hundreds of slots, which it receives at the
// same moment.
func TestOneWorkerKeepsManySockets(t *testing.T) {
	const slots = 1000
	f := newFleet(t, slots, "hold")
	f.Start()
	f.listens()
	f.open()
	conns := f.queue(300)
	f.command("max 1")
	f.command("go")
	f.served(conns)
	f.ask(300)
	f.end()
}

// A worker that has executed another program is a live process in its slot, and
// serves nothing.
func TestWorkerThatIsAnotherProgram(t *testing.T) {
	f := startFleet(t, 3)
	pids := f.ready(3, 1)
	conns := f.queue(100)
	syscall.Kill(pids[1], syscall.SIGUSR2)
	f.Expect(`^another program$`)
	f.open()
	f.served(conns)
	f.ask(100)
	f.end()
}

// A worker closes its listener and keeps running. Others serve its queue, and
// it gets no new connections; the next worker in its slot does.
func TestWorkerThatClosesItsListener(t *testing.T) {
	f := startFleet(t, 3)
	pids := f.ready(3, 1)
	conns := f.queue(100)
	syscall.Kill(pids[1], syscall.SIGWINCH)
	f.Expect(`^closed$`)
	f.open()
	for _, a := range f.served(conns) {
		if a.slot == 1 {
			t.Error("served by the one that has closed its listener")
		}
	}
	if got := f.ask(100); got[1] != 0 {
		t.Errorf("asked: %v", got)
	}
	syscall.Kill(pids[1], syscall.SIGKILL)
	f.Expect(`^ready 1 gen 1 `)
	preforktest.WaitFor(t, "an answer of slot 1", func() bool { return f.ask(20)[1] > 0 })
	f.end()
}

// A worker is ready and warms up before its first Accept. Until then it gets no
// connections, and another serves its queue, also after a rolling reload.
func TestWorkerThatDoesNotAcceptYet(t *testing.T) {
	f := startFleet(t, 3, "warm=1", "hold")
	conns := f.queue(100)
	f.command("go")
	f.ready(3, 1)
	f.served(conns)
	f.Signal(usr1)
	f.ready(3, 2)
	f.Expect(`^rolled 2$`)
	if got := f.ask(300); got[1] != 0 || got[0] == 0 || got[2] == 0 {
		t.Errorf("asked: %v", got)
	}
	f.open()
	f.wantSlots("tcp", f.addrs[0], 3)
	f.end()
}

// Each of several listeners is the same in the manager and in all workers. If a
// network cannot have a socket for each worker, the manager logs that once.
func TestPerWorkerIdentities(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	sockets := []string{"tcp 127.0.0.1:0", "unix " + path, "tcp 127.0.0.1:0", "tcp4 :0"}
	if ln, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ln.Close()
		sockets = append(sockets, "tcp6 [::1]:0", "tcp [::]:0")
	} else {
		t.Logf("no IPv6 here (%v)", err)
	}
	f := newFleet(t, 3, "on="+strings.Join(sockets, ","))
	f.Start()
	f.open()
	for i, on := range f.ExpectN(len(sockets), `^on (\S+) (\S+) per worker (true|false)$`) {
		if network, _, _ := strings.Cut(sockets[i], " "); on[1] != network || on[3] != fmt.Sprint(network != "unix") {
			t.Errorf("%s: %s", sockets[i], on[0])
		}
		f.addrs = append(f.addrs, on[2])
	}
	f.ready(3, 1)
	for range 2 {
		for i, addr := range f.addrs {
			network, slots := "tcp", 3
			if addr == path {
				network, slots = "unix", 1 // whichever answers first
			}
			for _, a := range f.wantSlots(network, strings.Replace(addr, "0.0.0.0", "127.0.0.1", 1), slots) {
				if a.listener != i {
					t.Errorf("%s is served as listener %d", sockets[i], a.listener)
				}
			}
		}
		f.Signal(usr1)
		f.Expect(`^rolled`)
	}
	second := preforktest.Start(t, "perworker", "dir="+f.dir, "on=tcp "+f.addrs[0])
	second.Expect(`prefork: ListenPerWorker\("tcp", "127.0.0.1:\d+"\): .*address already in use`)
	second.Wait()
	f.end()
	if n := strings.Count(strings.Join(f.Lines(), "\n"), "one socket for all workers instead of one for each"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// A program that is given sockets listens on them.
func TestPerWorkerGivenSocket(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f := newFleet(t, 2, "on=tcp "+ln.Addr().String())
	f.Cmd.Env = append(f.Cmd.Env, "SERVER_STARTER_PORT="+ln.Addr().String()+"=3", "SERVER_STARTER_GENERATION=1")
	f.Cmd.ExtraFiles = []*os.File{file}
	f.Start()
	f.open()
	f.Expect(`WARN one socket for all workers instead of one for each network=tcp .*why="this program was started with sockets`)
	f.addrs = []string{f.Expect(`^on \S+ (\S+) per worker false$`)[1]}
	f.ready(2, 1)
	f.ask(20)
	f.end()
}

// The manager is killed while workers keep the sockets of other slots: no
// process is left, and the port is free.
func TestPerWorkerManagerKilled(t *testing.T) {
	f := startFleet(t, 4, "respawn=1h")
	f.open()
	pids := f.ready(4, 1)
	for slot := range 2 {
		syscall.Kill(pids[slot], syscall.SIGKILL)
	}
	f.ExpectN(2, `^delay`)
	f.ask(10)
	f.Kill()
	f.Wait()
	f.WaitGone()
	again := startFleet(t, 2, "on=tcp "+f.addrs[0])
	again.open()
	again.ready(2, 1)
	again.ask(10)
	again.end()
}

// Reloads of both kinds, exits and resizes under load: no request fails. A
// killed worker would lose its accepted connections; the workers here are asked
// to exit.
func TestPerWorkerStorm(t *testing.T) {
	eachMode(t, func(t *testing.T, listen string) {
		f := startFleet(t, 4, listen, "respawn=-1s")
		f.open()
		f.ready(4, 1)
		var stop atomic.Bool
		var asked atomic.Int64
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for !stop.Load() {
					if _, err := once(f.addrs[0]); err != nil {
						t.Errorf("request %d: %v", asked.Load(), err)
						return
					}
					asked.Add(1)
				}
			})
		}
		rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
		for range testprog.Times(300) {
			before := asked.Load()
			switch rng.IntN(4) {
			case 0:
				f.Signal(hup)
			case 1:
				f.Signal(usr1)
			case 2:
				f.command(fmt.Sprint("max ", 1+rng.IntN(8)))
			case 3:
				if procs, err := preforktest.Children(f.PID()); err == nil && len(procs) > 0 {
					syscall.Kill(procs[rng.IntN(len(procs))].PID, term)
				}
			}
			preforktest.WaitFor(t, "more answers", func() bool { return t.Failed() || asked.Load() >= before+int64(rng.IntN(20)) })
		}
		stop.Store(true)
		clients.Wait()
		t.Logf("%d requests", asked.Load())
		f.end()
	})
}

// once makes one request.
func once(addr string) (answer string, err error) {
	conn, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("?")); err != nil {
		return "", err
	}
	data, err := io.ReadAll(conn)
	if err == nil && len(data) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(data), err
}

// From one worker to many, and back.
func TestPerWorkerGrowsFar(t *testing.T) {
	many := testprog.Times(300)
	f := startFleet(t, 1)
	f.open()
	f.ready(1, 1)
	conns := f.queue(50)
	f.command(fmt.Sprint("max ", many))
	f.ready(many-1, 1)
	conns = append(conns, f.queue(2*many)...)
	f.command("max 1")
	f.ExpectN(many-1, `^gone`)
	f.served(append(conns, f.queue(100)...))
	f.end()
}

// perWorkerPools is a program of two Managers with a listener each. A worker of
// one has the other's listener, which gets no connections.
func perWorkerPools() {
	var pms [2]*prefork.Manager
	var lns [2]net.Listener
	for i, name := range []string{"a", "b"} {
		pms[i] = testprog.NewManager(prefork.Config{Name: name, MaxWorkers: 2})
		ln, err := pms[i].ListenPerWorker("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		if lns[i] = ln; !prefork.IsWorker() {
			testprog.Print("on tcp %s per worker true", ln.Addr())
		}
	}
	var both sync.WaitGroup
	for i, pm := range pms {
		both.Go(func() {
			testprog.UntilTerm(pm, func(w *prefork.Worker) error {
				ctx := w.Context()
				other := lns[1-i]
				idles := make(chan error)
				go func() {
					_, err := other.Accept()
					idles <- err
				}()
				serveSlots(ctx, w, lns[i:i+1])
				other.Close()
				testprog.Print("the other's listener: %v", <-idles)
				return nil
			})
		})
	}
	both.Wait()
}

func TestPerWorkerOfTwoManagers(t *testing.T) {
	f := newFleet(t, 2)
	f.Program = preforktest.New(t, "perworkerpools")
	f.Start()
	f.listens()
	f.listens()
	f.open()
	f.ExpectN(4, `INFO worker ready`)
	for _, addr := range f.addrs {
		f.wantSlots("tcp", addr, 2)
	}
	f.Signal(term)
	f.ExpectN(4, `^the other's listener: use of closed network connection$`)
	testprog.ExpectSuccess(t, f.Program)
}
