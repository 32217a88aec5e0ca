//go:build unix

package prefork

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// Most tests of this package's inside run a Manager on processes that do not exist (proc.Fake), in a bubble in which time passes only
// when everybody waits: what takes seconds in a manager takes none here, and is exact.

const (
	hup  = syscall.SIGHUP
	term = syscall.SIGTERM
	usr1 = syscall.SIGUSR1
	kill = syscall.SIGKILL
)

// rig is a Manager with pretended workers.
type rig struct {
	*Manager
	t    *testing.T
	fake *proc.Fake

	mu     sync.Mutex
	events []string
	exits  []Exit
}

// boot is how long a pretended worker takes to reach Start.
const boot = time.Millisecond

// newRig makes a Manager whose workers reach Start after boot and end cleanly on SIGTERM, unless the test says otherwise
// through onStart and onSignal.
func newRig(t *testing.T, cfg Config, onStart func(*proc.FakeProcess), onSignal func(*proc.FakeProcess, syscall.Signal)) *rig {
	t.Helper()
	r := &rig{t: t}
	observe, reap := cfg.Observe, cfg.OnChildReap
	cfg.Observe = func(ev Event) {
		r.mu.Lock()
		r.events = append(r.events, ev.String())
		r.mu.Unlock()
		if observe != nil {
			observe(ev)
		}
	}
	cfg.OnChildReap = func(m *Manager, e Exit) {
		r.mu.Lock()
		r.exits = append(r.exits, e)
		r.mu.Unlock()
		if reap != nil {
			reap(m, e)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	cfg.Name = t.Name()
	m, err := newManager(cfg, func(notify func(proc.Note)) proc.Table {
		r.fake = proc.NewFake(notify)
		r.fake.OnStart = onStart
		if onStart == nil {
			r.fake.OnStart = reachStart
		}
		r.fake.OnSignal = onSignal
		if onSignal == nil {
			r.fake.OnSignal = endOnTerm
		}
		return r.fake
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		self.unregister(cfg.Name)
		for _, g := range m.generations {
			g.passed.close()
		}
		for _, s := range m.sockets {
			syscall.Close(s.fd)
		}
	})
	r.Manager = m
	return r
}

func reachStart(p *proc.FakeProcess) {
	time.AfterFunc(boot, func() { p.Say(wire.Append(nil, wire.Reached{})) })
}

func endOnTerm(p *proc.FakeProcess, sig syscall.Signal) {
	if sig == term {
		p.Exit(proc.Status{})
	}
}

// startAgain calls Start in a loop until the shutdown signal, and then WaitAllChildren, in a goroutine; the returned
// channel is closed at the end.
func (r *rig) startAgain() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r.SignalReceived() != term {
			r.Start()
		}
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != nil {
			r.t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
	}()
	return done
}

// wantWorkers compares the number of workers now, once everything that happens at this moment has happened.
func (r *rig) wantWorkers(when string, want int) {
	r.t.Helper()
	synctest.Wait()
	if got := r.NumWorkers(); got != want {
		r.t.Errorf("%s: %d workers, want %d", when, got, want)
	}
}

func (r *rig) eventLog() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *rig) count(part string) (n int) {
	for _, e := range r.eventLog() {
		if strings.Contains(e, part) {
			n++
		}
	}
	return n
}

// worker is the i-th process ever started, from 1: its ordinal.
func (r *rig) process(i int) *proc.FakeProcess { return r.fake.Started()[i-1] }

// signalsOf is what a worker was sent, without the SIGCONT that follows each stop signal.
func signalsOf(p *proc.FakeProcess) (sent []syscall.Signal) {
	for _, sig := range p.Signals() {
		if n := len(sent); sig != continueSignal || n == 0 || sent[n-1] != term && sent[n-1] != syscall.SIGQUIT {
			sent = append(sent, sig)
		}
	}
	return sent
}

// told is what the i-th worker was told, the stop message left out.
func (r *rig) told(i int) (all []wire.Message) {
	r.t.Helper()
	synctest.Wait()
	for buf := r.process(i).Written(); len(buf) > 0; {
		msg, n, err := wire.Decode(buf)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, ok := msg.(wire.Stop); !ok {
			all = append(all, msg)
		}
		buf = buf[n:]
	}
	return all
}

// wantSignals compares what the i-th worker was sent.
func (r *rig) wantSignals(i int, want ...syscall.Signal) {
	r.t.Helper()
	synctest.Wait()
	if got := signalsOf(r.process(i)); !slices.Equal(got, want) {
		r.t.Errorf("worker %d was sent %v, want %v", i, got, want)
	}
}

var hupAndTerm = Signals{term: {Signal: term}, hup: {Signal: term}}

// panics returns what f panics with.
func panics(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}
