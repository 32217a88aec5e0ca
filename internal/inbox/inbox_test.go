package inbox

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sigqueue"
)

const (
	term = syscall.SIGTERM
	hup  = sig("hup")
)

type sig string

func (s sig) Signal()        {}
func (s sig) String() string { return string(s) }

// Everything that is put into the inbox wakes the loop, once for all of it, and is
// taken once.
func TestTake(t *testing.T) {
	in := New()
	woken := func() bool {
		select {
		case <-in.Wake():
			return true
		default:
			return false
		}
	}
	if woken() {
		t.Error("an empty inbox wakes the loop")
	}
	for name, put := range map[string]func(){
		"Nudge":       in.Nudge,
		"Note":        func() { in.Note(proc.Note{ID: 7}) },
		"Do":          func() { in.Do(func() {}) },
		"Signal":      func() { in.Signal(sigqueue.Arrival{Sig: hup}) },
		"Fail":        func() { in.Fail(sigqueue.Arrival{Sig: term, Context: true}, nil) },
		"DropContext": in.DropContext,
	} {
		if put(); !woken() || woken() {
			t.Errorf("%s does not wake the loop once", name)
		}
	}
	in.Do(func() {})
	in.Do(func() {})
	if !woken() || woken() {
		t.Error("two commands wake the loop twice")
	}
	in.Note(proc.Note{ID: 8})
	if got := in.TakeCommands(); len(got) != 3 {
		t.Errorf("%d commands, want 3", len(got))
	}
	in.Do(func() {})
	notes, commands := in.Take()
	if want := []proc.Note{{ID: 7}, {ID: 8}}; !slices.Equal(notes, want) || len(commands) != 1 {
		t.Errorf("%v, %d commands", notes, len(commands))
	}
	if notes, commands := in.Take(); notes != nil || commands != nil {
		t.Error("taken twice")
	}
}

// The shutdown signal comes first, and the first error of a shutdown counts.
func TestSignals(t *testing.T) {
	in, err := New(), errors.New("first")
	in.Signal(sigqueue.Arrival{Sig: hup})
	in.Signal(sigqueue.Arrival{Sig: term, Context: true})
	in.DropContext()
	if in.HasSignal(term) || !in.HasSignal(hup) {
		t.Error("the end of a context is not dropped alone")
	}
	in.Fail(sigqueue.Arrival{Sig: term}, err)
	in.Fail(sigqueue.Arrival{Sig: term}, errors.New("second"))
	if a, ok := in.TakeSignal(term); a.Sig != term || !ok {
		t.Errorf("%v, %t", a, ok)
	}
	if got := in.TakeFailure(); got != err || in.TakeFailure() != nil {
		t.Error(got)
	}
	if got := in.TakeSignals(); len(got) != 1 || got[0].Sig != hup || in.HasSignal(hup) || len(in.TakeSignals()) > 0 {
		t.Errorf("%v", got)
	}
}

// A Ping is answered after a turn that has begun after it, and after as many as there
// were signals; at once when the loop has nothing to do.
func TestPing(t *testing.T) {
	for _, tt := range []struct{ signals, turns int }{{0, 1}, {1, 1}, {3, 3}} {
		synctest.Test(t, func(t *testing.T) {
			for _, idle := range []bool{false, true} {
				in := New()
				in.BeginTurn()
				for i := range tt.signals {
					in.Signal(sigqueue.Arrival{Sig: syscall.Signal(i + 1)})
				}
				done := make(chan error, 2)
				for range 2 {
					go func() { done <- in.Ping(t.Context()) }()
				}
				synctest.Wait()
				in.BeginTurn()
				for range tt.turns {
					synctest.Wait()
					if len(done) > 0 {
						t.Fatalf("%+v: answered too early", tt)
					}
					if idle {
						break
					}
					in.BeginTurn()
				}
				if idle {
					in.Idle()
				}
				synctest.Wait()
				if len(done) != 2 {
					t.Fatalf("%+v: no answer", tt)
				}
				if err := errors.Join(<-done, <-done); err != nil {
					t.Error(err)
				}
				in.Idle()
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New().Ping(ctx); err != context.Canceled {
		t.Error(err)
	}
}
