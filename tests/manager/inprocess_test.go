//go:build unix

package manager_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
)

// At each event, the state has exactly the changes up to it.
func TestFollowInProcessState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{InProcess: true, TrapSignals: hupAndTerm, ErrRespawnInterval: time.Second}, nil, nil)
		var mu sync.Mutex
		var log []string
		requests := uint64(0)
		now, _ := r.Follow(func(rec prefork.Record) {
			now := r.Snapshot()
			var worker prefork.WorkerInfo
			gone := false
			switch ev := rec.Event.(type) {
			case prefork.StateEvent:
				worker = ev.Worker
			case prefork.ExitEvent:
				gone = true
				requests += ev.Exit.Requests
				if now.Requests != requests {
					t.Errorf("at %v: %d requests, want %d", ev, now.Requests, requests)
				}
			default:
				return
			}
			mu.Lock()
			defer mu.Unlock()
			log = append(log, strings.ReplaceAll(fmt.Sprint(rec.Event), fmt.Sprint(now.PID), "1"))
			switch {
			case now.Seq != rec.Seq:
				t.Errorf("at %v, event %d: the state has event %d", rec.Event, rec.Seq, now.Seq)
			case gone && len(now.Workers) != 0:
				t.Errorf("at %v: %+v", rec.Event, now)
			case !gone && (len(now.Workers) != 1 || now.Workers[0].State != worker.State || !now.Workers[0].Since.Equal(worker.Since) || now.Workers[0].Ordinal != worker.Ordinal):
				t.Errorf("at %+v: %+v", rec.Event, now.Workers)
			}
		})
		if now.Seq != 0 || len(now.Workers) != 0 {
			t.Errorf("%+v", now)
		}
		done := make(chan error, 1)
		go func() {
			done <- r.Run(t.Context(), func(w *prefork.Worker) error {
				w.Served(7)
				if w.Ordinal() == 1 {
					time.Sleep(time.Minute)
					return nil
				}
				<-w.Context().Done()
				return nil
			})
		}()
		time.Sleep(time.Hour)
		r.Deliver(hup)
		time.Sleep(time.Hour)
		if err := r.ReplaceWorker(t.Context(), 3); err != nil {
			t.Error(err)
		}
		if err := r.SignalWorker(4, term); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		r.Deliver(term)
		if err := <-done; err != nil {
			t.Error(err)
		}
		var want []string
		for i, ends := range []string{"finished: exit code 0 after 1m0s", "stopped: exit code 0 after 59m0s", "stopped: exit code 0 after 1h0m0s", "stopped: exit code 0 after 0s", "stopped: exit code 0 after 0s"} {
			gen := 1
			if i >= 2 {
				gen = 2
			}
			worker := fmt.Sprintf("worker 1 (slot 0, generation %d)", gen)
			want = append(want, worker+" starting", worker+" ready")
			if i > 0 {
				want = append(want, worker+" stopping")
			}
			want = append(want, worker+" "+ends)
		}
		if got := strings.Join(log, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	})
}

// The total of requests never decreases, and a command never reaches a later worker
// than the one that it names. Workers come and go as fast as they can.
func TestInProcessRaces(t *testing.T) {
	var mu sync.Mutex
	var wrong []string
	r := newRig(t, prefork.Config{InProcess: true, TrapSignals: hupAndTerm, ErrRespawnInterval: -1}, nil, nil)
	r.Follow(func(rec prefork.Record) {
		if ev, ok := rec.Event.(prefork.ExitEvent); ok && ev.Exit.Reason == prefork.ReasonStopped && ev.Exit.Ordinal%2 == 0 {
			mu.Lock()
			wrong = append(wrong, ev.String())
			mu.Unlock()
		}
	})
	const lives = 2000
	var served atomic.Uint64
	done := make(chan error, 1)
	go func() {
		done <- r.Run(t.Context(), func(w *prefork.Worker) error {
			w.Served(1)
			if n := served.Add(1); n > lives {
				r.Shutdown()
				<-w.Context().Done()
			}
			return nil
		})
	}()
	for last := uint64(0); ; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(wrong) > 0 {
				t.Errorf("%d workers were stopped by commands for others: %s", len(wrong), wrong[0])
			}
			return
		default:
		}
		now := r.Snapshot()
		if now.Requests < last {
			t.Fatalf("%d requests after %d", now.Requests, last)
		}
		last = now.Requests
		if len(now.Workers) > 0 && now.Workers[0].Ordinal%2 == 1 {
			r.SignalWorker(now.Workers[0].Ordinal, term)
		}
	}
}

// A reload that is asked for while one waits for the worker's end waits for that, and
// then is one more.
func TestReloadDuringReloadInProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{InProcess: true, TrapSignals: hupAndTerm}, nil, nil)
		done := make(chan error, 1)
		go func() {
			done <- r.Run(t.Context(), func(w *prefork.Worker) error {
				<-w.Context().Done()
				time.Sleep(time.Second)
				return nil
			})
		}()
		time.Sleep(time.Minute)
		first := r.reload(prefork.Forward{})
		synctest.Wait()
		a, b := r.reload(prefork.Forward{}), r.reload(prefork.Forward{})
		time.Sleep(time.Second)
		answered(t, "first", first, 2, "")
		pending(t, "second", a)
		time.Sleep(time.Second)
		answered(t, "second", a, 3, "")
		answered(t, "joined the second", b, 3, "")
		r.Deliver(term)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A command that WaitAllChildren refuses is no signal that was received.
func TestRefusedCommandInProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{InProcess: true, TrapSignals: hupAndTerm}, nil, nil)
		early := r.reload(prefork.Forward{})
		pending(t, "before the first generation", early)
		if left, err := r.WaitAllChildren(t.Context()); left != 0 || err != nil {
			t.Error(left, err)
		}
		answered(t, "refused", early, 0, "WaitAllChildren")
		if sig := r.SignalReceived(); sig != nil {
			t.Errorf("received %v", sig)
		}
	})
}
