//go:build linux

package prefork

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// listenPerWorkerOn makes a rig's listener, which is closed at the test's end.
func (r *rig) listenPerWorkerOn() {
	r.t.Helper()
	ln, err := r.ListenPerWorker("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ln.Close()
	r.t.Cleanup(func() {
		for _, s := range r.sockets {
			for _, fd := range s.group.fds[1:] { // the rig closes the first
				syscall.Close(fd)
			}
		}
	})
}

func (r *rig) wantTold(when string, i int, want ...wire.Message) {
	r.t.Helper()
	if got := r.told(i); !slices.Equal(got, want) {
		r.t.Errorf("%s: worker %d was told %#v, want %#v", when, i, got, want)
	}
}

// idle does something while the loop sleeps: what is the loop's own may be read and changed there.
func (r *rig) idle(do func()) {
	synctest.Wait()
	r.Manager.mu.Lock() // which the loop takes before it steers
	defer r.Manager.mu.Unlock()
	do()
}

// live are the slots that get new connections.
func (r *rig) live() (slots []int) {
	r.idle(func() { slots = slices.Clone(r.sockets[0].group.live) })
	return slots
}

// A slot without a ready worker is another's to serve, from its worker's end, or its being told to stop, until the next
// is ready.
func TestKeeperOfASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := func(p *proc.FakeProcess, sig syscall.Signal) {}
		r := newRig(t, Config{MaxWorkers: 3, TrapSignals: rollingHup}, nil, deaf)
		r.listenPerWorkerOn()
		done := r.startAgain()
		time.Sleep(time.Minute)
		first := r.told(1) // until the others were ready
		r.process(2).Exit(proc.Status{Code: 1})
		r.wantTold("slot 1 is empty", 1, append(first, wire.Adopt{Socket: 0, Slot: 1})...)
		if got := r.live(); !slices.Equal(got, []int{0, 2}) {
			t.Errorf("slots %v get connections", got)
		}
		time.Sleep(boot)
		r.wantTold("slot 1 has a worker", 1, append(first, wire.Adopt{Socket: 0, Slot: 1}, wire.Drop{Socket: 0, Slot: 1})...)

		r.SetMaxWorkers(2) // the worker of slot 2, which does not end
		synctest.Wait()
		if got := r.live(); !slices.Equal(got, []int{0, 1}) {
			t.Errorf("slots %v get connections while that of slot 2 is told to stop", got)
		}
		r.process(3).Exit(proc.Status{})
		r.process(1).Exit(proc.Status{Code: 1}) // the keeper of slot 2
		if got := r.told(4); !slices.Contains(got, wire.Message(wire.Adopt{Socket: 0, Slot: 2})) {
			t.Errorf("the worker that is left was told %#v", got)
		}
		time.Sleep(time.Minute)
		r.Deliver(term)
		for _, p := range r.fake.Started() {
			p.Exit(proc.Status{})
		}
		<-done
	})
}

// fullProcess is a process whose control socket has room for so many messages.
type fullProcess struct {
	proc.Process
	room, tries int
}

func (p *fullProcess) WriteFile(b []byte, fd int) error {
	p.tries++
	if p.room == 0 {
		return proc.ErrWouldBlock
	}
	p.room--
	return p.Process.WriteFile(b, fd)
}

// A worker that has no room for more messages is told again, until it is told all.
func TestKeeperWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 10}, nil, nil)
		r.listenPerWorkerOn()
		r.SetMaxWorkers(1)
		done := r.startAgain()
		var full *fullProcess
		r.idle(func() { // the worker is spawned, and is not ready
			full = &fullProcess{Process: r.children[1].proc, room: 4}
			r.children[1].proc = full
		})
		time.Sleep(boot)
		if got := len(r.told(1)); got != 4 {
			t.Errorf("told %d times, want 4", got)
		}
		tries := 0
		for _, room := range []int{0, 3, 100} {
			r.idle(func() { full.room, full.tries = room, 0 })
			time.Sleep(time.Second)
			r.idle(func() { tries = full.tries })
			if tries > 2000 {
				t.Errorf("%d tries in a second", tries)
			}
		}
		slots := []int{}
		for _, msg := range r.told(1) {
			slots = append(slots, msg.(wire.Adopt).Slot)
		}
		slices.Sort(slots)
		if !slices.Equal(slots, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("told of slots %v", slots)
		}
		r.idle(func() { full.tries = 0 })
		time.Sleep(time.Minute)
		r.idle(func() { tries = full.tries })
		if tries != 0 {
			t.Errorf("%d tries after all was told", tries)
		}
		r.Deliver(term)
		<-done
	})
}

// Where workers cannot have sockets of their own, there is one for all, and one warning.
func TestPerWorkerOfACommand(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, Config{Command: []string{"true"}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, nil)
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

// successorSockets is how many sockets for slots a successor was handed.
func successorSockets(t *testing.T, p *proc.FakeProcess) (n int) {
	t.Helper()
	for _, kv := range p.Spec.Env {
		value, ok := strings.CutPrefix(kv, inherit.SuccessorEnv+"=")
		if !ok {
			continue
		}
		marker, err := inherit.ParseSuccessor(value)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range marker.Sockets {
			if perSlot(s) {
				n++
			}
		}
	}
	return n
}

// While a successor is there, it alone makes sockets: two who do cannot know their places in the kernel's group.
func TestNoSocketsBesideASuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{}, nil)
		r.listenPerWorkerOn()
		done := r.startAgain()
		time.Sleep(time.Minute)
		want := func(when string, workers, sockets int) {
			t.Helper()
			r.wantWorkers(when, workers)
			got := 0
			r.idle(func() { got = len(r.sockets[0].group.fds) })
			if got != sockets {
				t.Errorf("%s: %d sockets, want %d", when, got, sockets)
			}
		}
		r.SetMaxWorkers(3) // just before the upgrade: the worker may come later, its socket not
		r.Deliver(usr2)
		want("a successor starts", 3, 3)
		successor := r.successorProcesses()[0]
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
		successor = r.successorProcesses()[1]
		if n := successorSockets(t, successor); n != 5 {
			t.Errorf("the second successor was handed %d sockets, want 5", n)
		}
		r.SetMaxWorkers(6)
		time.Sleep(time.Second)
		say(successor, wire.Reached{})
		want("the successor took over", 0, 5)
		<-done
	})
}
