//go:build unix

package manager_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/sigqueue"
	"github.com/prefork-go/prefork/internal/wire"
)

// rig is a Manager whose workers are processes of a proctest.Table. Most tests run
// it in a synctest bubble, in which a minute takes no time and is exact.
type rig struct {
	*prefork.Manager
	t        testing.TB
	name     string
	fake     *proctest.Table
	table    prefork.Signals
	traps    []syscall.Signal              // the signals that New receives
	handlers map[os.Signal]func(os.Signal) // of the traps
	released *int                          // counts the traps that were released; nil: not

	mu     sync.Mutex
	events []prefork.Event
	exits  []prefork.Exit
	blobs  []blob // by ordinal, from 1
}

// options are the parts of a rig that a test may replace.
type options struct {
	// onStart and onSignal are those of the Fake. By default a worker becomes
	// ready after boot and exits on SIGTERM.
	onStart  func(*proctest.Process)
	onSignal func(*proctest.Process, syscall.Signal)
	// wrap returns the Process that the Manager gets for p; nil means p.
	wrap func(p *proctest.Process) proc.Process
	// unobserved leaves Observe and OnChildReap as the Config has them.
	unobserved bool
}

// boot is the time that a pretended worker needs until it is ready.
const boot = time.Millisecond

// rigs numbers the rigs: a Manager keeps its Name until the process exits.
var rigs atomic.Int64

func newRig(t testing.TB, cfg prefork.Config, onStart func(*proctest.Process), onSignal func(*proctest.Process, syscall.Signal)) *rig {
	t.Helper()
	return newRigWith(t, cfg, options{onStart: onStart, onSignal: onSignal})
}

func newRigWith(t testing.TB, cfg prefork.Config, opt options) *rig {
	t.Helper()
	r := &rig{t: t, name: fmt.Sprintf("%s/%d", t.Name(), rigs.Add(1))}
	if !opt.unobserved {
		r.observe(&cfg)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Name, r.table = r.name, cfg.TrapSignals
	if opt.onStart == nil {
		opt.onStart = reachStart
	}
	if opt.onSignal == nil {
		opt.onSignal = endOnTerm
	}
	t.Cleanup(r.release)
	m, err := r.newManager(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	r.Manager = m
	return r
}

// release ends the workers that a test has left, and closes the Manager.
func (r *rig) release() {
	if r.fake != nil { // not in in-process mode
		for _, p := range r.fake.Started() {
			p.Exit(proc.Status{})
			p.ExitForked()
		}
	}
	if r.Manager == nil {
		return
	}
	// After a handover only the end of the process closes it.
	if err := r.Close(); err != nil && os.Getenv(aloneVar) == "" {
		r.t.Error(err)
	}
}

// observe makes the Manager record its events and exits in the rig.
func (r *rig) observe(cfg *prefork.Config) {
	observe, reap := cfg.Observe, cfg.OnChildReap
	cfg.Observe = func(ev prefork.Event) {
		r.mu.Lock()
		r.events = append(r.events, ev)
		r.mu.Unlock()
		if observe != nil {
			observe(ev)
		}
	}
	cfg.OnChildReap = func(m *prefork.Manager, e prefork.Exit) {
		r.mu.Lock()
		r.exits = append(r.exits, e)
		r.mu.Unlock()
		if reap != nil {
			reap(m, e)
		}
	}
}

// newManager calls New with the pretended table, and with traps that only the
// rig knows of.
func (r *rig) newManager(cfg prefork.Config, opt options) (*prefork.Manager, error) {
	newTable, trap := proc.NewTable, sigqueue.Trap
	r.t.Cleanup(func() { proc.NewTable, sigqueue.Trap = newTable, trap }) // Run traps, too
	proc.NewTable = func(notify func(proc.Note)) proc.Table {
		r.fake = proctest.NewTable(notify)
		r.fake.OnStart = func(p *proctest.Process) {
			r.noteBlob(p)
			opt.onStart(p)
		}
		r.fake.OnSignal = opt.onSignal
		return &table{r.fake, opt.wrap}
	}
	sigqueue.Trap = r.trap
	return prefork.New(cfg)
}

func (r *rig) trap(sig os.Signal, handler func(os.Signal)) (release func()) {
	if r.handlers == nil {
		r.handlers = make(map[os.Signal]func(os.Signal))
	}
	r.handlers[sig] = handler
	_, named := r.table[sig]
	if named || sig != syscall.SIGPIPE && sig != hup { // New traps these two for other ends
		r.traps = append(r.traps, sig.(syscall.Signal))
	}
	return func() {
		if r.released != nil {
			*r.released++
		}
	}
}

// receive acts as if another process had sent a signal that the Manager traps.
func (r *rig) receive(sig os.Signal) { r.handlers[sig](sig) }

// table is a Fake whose processes a test can wrap.
type table struct {
	*proctest.Table
	wrap func(*proctest.Process) proc.Process
}

func (t *table) Start(id uint64, spec proc.Spec) (proc.Process, error) {
	p, err := t.Table.Start(id, spec)
	if err != nil || t.wrap == nil {
		return p, err
	}
	if wrapped := t.wrap(p.(*proctest.Process)); wrapped != nil {
		return wrapped, nil
	}
	return p, nil
}

func reachStart(p *proctest.Process) {
	time.AfterFunc(boot, func() { send(p, wire.Ready{}) })
}

func endOnTerm(p *proctest.Process, sig syscall.Signal) {
	if sig == term {
		p.Exit(proc.Status{})
	}
}

func ignoreSignals(*proctest.Process, syscall.Signal) {}

// send has a pretended process send a message to the Manager.
func send(p *proctest.Process, msg wire.Message) { p.Send(wire.Append(nil, msg)) }

// startLoop calls Start in a loop until the shutdown signal, and then
// WaitAllChildren, in a goroutine. The channel is closed at the end.
func (r *rig) startLoop() <-chan struct{} {
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

// startRun calls Run in a goroutine and sends its error on the channel.
func (r *rig) startRun(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, noWork) }()
	return done
}

func noWork(*prefork.Worker) error { return nil }

// shutDown ends a Manager that has no workers, in a Start that spawns none.
func (r *rig) shutDown() {
	r.Shutdown()
	r.Start()
	r.WaitAllChildren(context.Background())
}

// wantWorkers compares the number of workers after everything that is due has
// happened.
func (r *rig) wantWorkers(when string, want int) {
	r.t.Helper()
	synctest.Wait()
	if got := r.NumWorkers(); got != want {
		r.t.Errorf("%s: %d workers, want %d", when, got, want)
	}
}

// eventLog returns the events so far as text.
func (r *rig) eventLog() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		all = append(all, ev.String())
	}
	return all
}

// count returns the number of events whose text contains part.
func (r *rig) count(part string) (n int) {
	for _, e := range r.eventLog() {
		if strings.Contains(e, part) {
			n++
		}
	}
	return n
}

// countEvents returns the number of events of type T.
func countEvents[T prefork.Event](r *rig) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if _, ok := ev.(T); ok {
			n++
		}
	}
	return n
}

// process returns the i-th process started, from 1. In a rig without
// successors this is the worker's ordinal.
func (r *rig) process(i int) *proctest.Process { return r.fake.Started()[i-1] }

// signalsOf returns the signals that p received, without the SIGCONT that
// follows each stop signal.
func signalsOf(p *proctest.Process) (sent []syscall.Signal) {
	for _, sig := range p.Signals() {
		if n := len(sent); sig != syscall.SIGCONT || n == 0 || sent[n-1] != term && sent[n-1] != syscall.SIGQUIT {
			sent = append(sent, sig)
		}
	}
	return sent
}

// wantSignals compares the signals that the i-th worker received.
func (r *rig) wantSignals(i int, want ...syscall.Signal) {
	r.t.Helper()
	synctest.Wait()
	if got := signalsOf(r.process(i)); !slices.Equal(got, want) {
		r.t.Errorf("worker %d received %v, want %v", i, got, want)
	}
}

// messages returns the messages to the i-th worker, without the stop message.
func (r *rig) messages(i int) (all []wire.Message) {
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

var hupAndTerm = prefork.Signals{term: {Signal: term}, hup: {Signal: term}}

// panics returns the value that f panics with, as text.
func panics(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}
