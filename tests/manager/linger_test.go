//go:build unix

package manager_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
)

// With Linger, a worker that is replaced serves beside its replacement for a time.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lingering := prefork.Forward{Rolling: true, Linger: 3 * time.Second}
		r := newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: lingering}}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		for i, start := range []func() <-chan outcome{
			func() <-chan outcome { return r.reload(prefork.Forward{}) }, // that of the table
			func() <-chan outcome { return r.reload(lingering) },
		} {
			reloaded := start()
			for slot := range 2 {
				time.Sleep(3*time.Second - boot)
				r.wantSignals(2*i + slot + 1)
				pending(t, "while it lingers", reloaded)
				time.Sleep(3 * boot)
				r.wantSignals(2*i+slot+1, term)
			}
			answered(t, "when both are replaced", reloaded, i+2, "")
			time.Sleep(time.Minute)
		}
		r.Shutdown()
		<-done
	})
	for part, f := range map[string]prefork.Forward{
		"Linger is for Rolling": {Signal: term, Linger: time.Second},
		"is negative":           {Rolling: true, Linger: -1},
		"leave the other":       {Upgrade: true, Linger: 1},
	} {
		if _, err := prefork.New(prefork.Config{Name: t.Name(), TrapSignals: prefork.Signals{hup: f}}); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%+v: %v, want %q", f, err, part)
		}
	}
}

// StopWorker stops one worker, and the policy fills its slot.
func TestStopWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		if err := r.StopWorker(2); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		r.wantSignals(1)
		r.wantSignals(2, term)
		r.wantSignals(3)
		if w := r.Snapshot().Workers; len(w) != 2 || w[1].Ordinal != 3 || w[1].Slot != 1 {
			t.Errorf("workers %+v", w)
		}
		if reason := r.exits[0].Reason; reason != prefork.ReasonStopped {
			t.Errorf("reason %v", reason)
		}
		var none *prefork.NoWorkerError
		if err := r.StopWorker(2); !errors.As(err, &none) || none.Ordinal != 2 {
			t.Errorf("no such worker: %v", err)
		}
		r.Shutdown()
		<-done
	})
}
