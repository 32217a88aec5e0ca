//go:build linux

package manager_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// listenPerWorker makes the listener of a rig and returns its address.
func (r *rig) listenPerWorker() (address string) {
	r.t.Helper()
	ln, err := r.ListenPerWorker("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ln.Close()
	return ln.Addr().String()
}

func (r *rig) wantMessages(when string, i int, want ...wire.Message) {
	r.t.Helper()
	if got := r.messages(i); !slices.Equal(got, want) {
		r.t.Errorf("%s: worker %d received %#v, want %#v", when, i, got, want)
	}
}

// listening returns the number of sockets that listen on an address.
func listening(t *testing.T, address string) (n int) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(address).Port()
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			n++
		}
	}
	return n
}

// wantConnections opens many connections and compares the slots whose sockets
// receive some of them.
func (r *rig) wantConnections(when, address string, want ...int) {
	r.t.Helper()
	synctest.Wait()
	sockets := make(map[int]int) // by slot
	for _, p := range r.fake.Started() {
		m := markerOf(r.t, p)
		sockets[m.Slot] = int(p.Spec.Files[m.Sockets[0].FD])
	}
	const connections = 64
	for range connections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			r.t.Fatal(err)
		}
		defer conn.Close()
	}
	var got []int
	var ready []unix.PollFd
	slots := slices.Sorted(maps.Keys(sockets))
	for _, slot := range slots {
		ready = append(ready, unix.PollFd{Fd: int32(sockets[slot]), Events: unix.POLLIN})
	}
	// A connection can be there a moment after Dial has returned.
	for accepted := 0; accepted < connections; {
		n, err := unix.Poll(ready, 10_000)
		if n == 0 || err != nil && err != unix.EINTR {
			r.t.Errorf("%s: %d of %d connections: %v", when, accepted, connections, err)
			break
		}
		for i, p := range ready {
			if p.Revents == 0 {
				continue
			}
			conn, _, err := unix.Accept(int(p.Fd))
			if err != nil {
				r.t.Errorf("%s: slot %d: %v", when, slots[i], err)
				return
			}
			unix.Close(conn)
			accepted++
			if !slices.Contains(got, slots[i]) {
				got = append(got, slots[i])
			}
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		r.t.Errorf("%s: slots %v get connections, want %v", when, got, want)
	}
}

// acceptAtStart is reachStart of a worker that accepts.
func acceptAtStart(p *proctest.Process) {
	time.AfterFunc(boot, func() {
		send(p, wire.Accepting{})
		send(p, wire.Ready{})
	})
}

// Another worker keeps the socket of a slot without a ready worker: from the
// exit of its worker, or its stop signal, until the next one is ready.
func TestKeeperOfSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, TrapSignals: rollingHup}, acceptAtStart, ignoreSignals)
		address := r.listenPerWorker()
		done := r.startLoop()
		time.Sleep(time.Minute)
		first := r.messages(1) // until the others were ready
		r.process(2).Exit(proc.Status{Code: 1})
		r.wantMessages("slot 1 is empty", 1, append(first, wire.Adopt{Socket: 0, Slot: 1})...)
		r.wantConnections("slot 1 is empty", address, 0, 2)
		time.Sleep(boot)
		r.wantMessages("slot 1 has a worker", 1, append(first, wire.Adopt{Socket: 0, Slot: 1}, wire.Drop{Socket: 0, Slot: 1})...)

		r.SetMaxWorkers(2) // stops the worker of slot 2, which ignores the signal
		r.wantConnections("the worker of slot 2 stops", address, 0, 1)
		r.process(3).Exit(proc.Status{})
		r.process(1).Exit(proc.Status{Code: 1}) // the keeper of slot 2
		if got := r.messages(4); !slices.Contains(got, wire.Message(wire.Adopt{Socket: 0, Slot: 2})) {
			t.Errorf("the worker that is left received %#v", got)
		}
		time.Sleep(time.Minute)
		r.Deliver(term)
		for _, p := range r.fake.Started() {
			p.Exit(proc.Status{})
		}
		<-done
	})
}

// A worker that does not accept gets no connections, and no sockets of others.
func TestWorkersThatDoNotAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3}, nil, nil)
		address := r.listenPerWorker()
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.wantMessages("none accepts", 1)
		r.wantConnections("none accepts", address, 0, 1, 2)
		send(r.process(2), wire.Accepting{Socket: 0})
		r.wantConnections("one accepts", address, 1)
		if got := r.messages(2); len(got) != 2 {
			t.Errorf("the worker that accepts received %v", got)
		}
		send(r.process(1), wire.Accepting{Socket: 0})
		send(r.process(3), wire.Accepting{Socket: 1}) // there is none
		r.wantConnections("two accept", address, 0, 1)
		send(r.process(2), wire.ListenerClosed{Socket: 0})
		r.wantConnections("one has closed its listener", address, 0)
		r.Deliver(term)
		<-done
	})
}

// A worker that reports that it could not take a socket must drop it, and another
// gets it.
func TestKeeperReportsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 3, ErrRespawnInterval: time.Hour}, acceptAtStart, nil)
		r.listenPerWorker()
		done := r.startLoop()
		time.Sleep(time.Minute)
		first, third := r.messages(1), r.messages(3)
		r.process(2).Exit(proc.Status{Code: 1})
		adopt := wire.Adopt{Slot: 1}
		r.wantMessages("slot 1 is empty", 1, append(first, adopt)...)
		send(r.process(1), wire.AdoptFailed{Slot: 1})
		r.wantMessages("it failed", 1, append(first, adopt, wire.Drop{Slot: 1})...)
		r.wantMessages("it failed", 3, append(third, adopt)...)
		r.Deliver(term)
		<-done
	})
}

// A worker that cannot accept gets no connections for a second, and another serves
// its queue.
func TestWorkerThatCannotAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, prefork.Config{MaxWorkers: 2, Logger: slog.New(slog.NewTextHandler(&log, nil))}, acceptAtStart, nil)
		address := r.listenPerWorker()
		done := r.startLoop()
		time.Sleep(time.Minute)
		first := r.messages(1)
		for range 3 {
			send(r.process(2), wire.AcceptFailed{Socket: 0})
		}
		r.wantConnections("it cannot", address, 0)
		r.wantMessages("it cannot", 1, append(first, wire.Adopt{Slot: 1})...)
		time.Sleep(time.Second)
		r.wantMessages("it is tried again", 1, append(first, wire.Adopt{Slot: 1}, wire.Drop{Slot: 1})...)
		r.wantConnections("it is tried again", address, 0, 1)
		r.Deliver(term)
		<-done
		if n := strings.Count(log.String(), "worker cannot accept connections"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
	})
}

// refusing is a process to which the kernel passes no descriptor.
type refusing struct {
	*proctest.Process
	refuses *atomic.Bool
	tries   *atomic.Int64
}

func (p *refusing) WriteFile(b []byte, fd int) error {
	if p.tries.Add(1); p.refuses.Load() {
		return os.NewSyscallError("sendmsg", syscall.EPERM)
	}
	return p.Process.WriteFile(b, fd)
}

// Where descriptors cannot be passed, the log has a line for each worker, and the
// manager tries seldom, and in the end not in vain.
func TestPassingRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var refuses atomic.Bool
		var tries atomic.Int64
		r := newRigWith(t, prefork.Config{MaxWorkers: 3, ErrRespawnInterval: 24 * time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))}, options{
			onStart: acceptAtStart,
			wrap:    func(p *proctest.Process) proc.Process { return &refusing{p, &refuses, &tries} },
		})
		r.listenPerWorker()
		done := r.startLoop()
		time.Sleep(time.Minute)
		refuses.Store(true)
		tries.Store(0)
		r.process(2).Exit(proc.Status{Code: 1})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := tries.Load(); n < 100 || n > 260 {
			t.Errorf("%d tries in an hour", n)
		}
		if n := strings.Count(log.String(), "worker cannot take the socket of another slot"); n != 2 {
			t.Errorf("%d warnings, want one for each worker:\n%s", n, log.String())
		}
		refuses.Store(false)
		time.Sleep(31 * time.Second)
		all := append(r.messages(1), r.messages(3)...)
		if n := len(slices.DeleteFunc(all, func(m wire.Message) bool { return m != wire.Adopt{Slot: 1} })); n == 0 {
			t.Error("no worker has the socket")
		}
		tries.Store(0)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := tries.Load(); n > 1 { // one, to share evenly, if both were tried
			t.Errorf("%d tries after that", n)
		}
		r.Deliver(term)
		<-done
	})
}

// fullProcess is a process whose control socket has room for a number of
// messages.
type fullProcess struct {
	*proctest.Process
	mu          sync.Mutex
	room, tries int
}

func (p *fullProcess) WriteFile(b []byte, fd int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if p.room == 0 {
		return proc.ErrWouldBlock
	}
	p.room--
	return p.Process.WriteFile(b, fd)
}

// set sets the room and returns the number of tries since the last call.
func (p *fullProcess) set(room int) (tries int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tries, p.tries, p.room = p.tries, 0, room
	return tries
}

// The manager retries until a worker whose socket was full has received every
// message.
func TestKeeperWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full *fullProcess
		r := newRigWith(t, prefork.Config{MaxWorkers: 10}, options{onStart: acceptAtStart, wrap: func(p *proctest.Process) proc.Process {
			full = &fullProcess{Process: p, room: 4}
			return full
		}})
		r.listenPerWorker()
		r.SetMaxWorkers(1)
		done := r.startLoop()
		time.Sleep(boot)
		if got := len(r.messages(1)); got != 4 {
			t.Errorf("%d messages, want 4", got)
		}
		for _, room := range []int{0, 3, 100} {
			full.set(room)
			time.Sleep(time.Second)
			synctest.Wait()
			if tries := full.set(room); tries > 2000 {
				t.Errorf("%d tries in a second", tries)
			}
		}
		slots := []int{}
		for _, msg := range r.messages(1) {
			slots = append(slots, msg.(wire.Adopt).Slot)
		}
		slices.Sort(slots)
		if !slices.Equal(slots, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("messages about slots %v", slots)
		}
		full.set(100)
		time.Sleep(time.Minute)
		synctest.Wait()
		if tries := full.set(100); tries != 0 {
			t.Errorf("%d tries after the last message", tries)
		}
		r.Deliver(term)
		<-done
	})
}

// If workers cannot have sockets of their own, they share one, and the manager
// logs a warning once.
func TestPerWorkerOfACommand(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, prefork.Config{Command: []string{"true"}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, nil)
	ln, err := r.ListenPerWorker("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if s := r.Snapshot().Sockets; len(s) != 1 || s[0].PerWorker || s[0].Address != ln.Addr().String() {
		t.Errorf("sockets: %v", s)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "Command") {
		t.Errorf("log: %s", log.String())
	}
	if _, err := r.ListenPerWorker("udp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), `ListenPerWorker("udp", "127.0.0.1:0")`) {
		t.Errorf("udp: %v", err)
	}
}

// successorSockets returns the number of sockets for slots that a successor was
// handed.
func successorSockets(t *testing.T, p *proctest.Process) (n int) {
	t.Helper()
	m, _ := successorMarker(t, p)
	for _, s := range m.Sockets {
		if s.Slot >= 0 {
			n++
		}
	}
	return n
}

// While a successor runs, only the successor creates sockets: two processes
// that did could not know their positions in the kernel's group.
func TestNoSocketsDuringUpgrade(t *testing.T) {
	alone(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{}, nil)
		address := r.listenPerWorker()
		done := r.startLoop()
		time.Sleep(time.Minute)
		want := func(when string, workers, sockets int) {
			t.Helper()
			r.wantWorkers(when, workers)
			if got := listening(t, address); got != sockets {
				t.Errorf("%s: %d sockets, want %d", when, got, sockets)
			}
		}
		// Just before the upgrade: the worker may start later, its socket may not.
		r.SetMaxWorkers(3)
		r.Deliver(usr2)
		want("a successor starts", 3, 3)
		successor := r.successors()[0]
		if n := successorSockets(t, successor); n != 3 {
			t.Errorf("the successor was handed %d sockets, want 3", n)
		}
		r.SetMaxWorkers(1)
		time.Sleep(time.Second)
		want("fewer beside a successor", 1, 3)
		r.SetMaxWorkers(5)
		time.Sleep(time.Second)
		want("more beside a successor", 3, 3)
		successor.Exit(proc.Status{Code: 1})
		want("the successor is gone", 5, 5)

		r.Deliver(usr2)
		time.Sleep(time.Second)
		successor = r.successors()[1]
		if n := successorSockets(t, successor); n != 5 {
			t.Errorf("the second successor was handed %d sockets, want 5", n)
		}
		r.SetMaxWorkers(6)
		time.Sleep(time.Second)
		send(successor, wire.Ready{})
		want("the successor took over", 0, 0) // the pretended successor holds no copies
		<-done
	})
}
