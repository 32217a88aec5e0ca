//go:build unix

package manager_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// A worker that floods the manager with messages is throttled. The manager
// keeps serving the other workers and reads every message in the end.
func TestMessagesAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, ErrRespawnInterval: -1}, nil, nil)
		done := r.startLoop()
		time.Sleep(time.Second)
		sender, other := r.process(1), r.process(2)
		const count = 100_000
		bell := wire.Append(nil, wire.StatusChanged{})
		sender.Send(append(bytes.Repeat(bell, count), wire.Append(nil, wire.Recycle{})...))
		other.Exit(proc.Status{Code: 1})
		synctest.Wait()
		if n := len(r.fake.Started()); n != 3 {
			t.Errorf("%d workers were started, want 3: the other one was not replaced", n)
		}
		if n := sender.Unread(); n < count*len(bell)*9/10 {
			t.Errorf("%d of %d bytes are left: one turn read too much", n, count*len(bell))
		}
		before := sender.Unread()
		time.Sleep(time.Second)
		if read := before - sender.Unread(); read == 0 || read > count*len(bell)/2 {
			t.Errorf("%d of %d bytes were read in a second", read, before)
		}
		time.Sleep(time.Minute)
		if n := sender.Unread(); n != 0 {
			t.Errorf("%d bytes are left after a minute", n)
		}
		if n := len(r.fake.Started()); n != 4 {
			t.Errorf("%d workers were started, want 4: the last message was not read", n)
		}
		// When a worker has exited, the manager reads its socket once more. It
		// does not wait for the end of the data: another process may have the
		// socket and keep writing.
		sender = r.process(3)
		sender.Send(bytes.Repeat(bell, count))
		sender.Exit(proc.Status{})
		synctest.Wait()
		if n := len(r.fake.Started()); n != 5 {
			t.Errorf("%d workers were started, want 5", n)
		}
		r.Deliver(term)
		<-done
	})
}

// Whatever a worker sends harms only that worker. The manager neither signals
// nor replaces the others, keeps running, and ends on SIGTERM.
func FuzzWorkerMessages(f *testing.F) {
	for _, s := range []string{"R\x00", "B\x00B\x00", "Q\x00", "F\x03why", "S\x00", "T\x00", "A\x08\x00\x00\x00\x00\x00\x00\x00\x01", "D\x08", "R\x00Q\x00Q\x00", "E\x03\x07why", "\xff\xff", "P"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, prefork.Config{MaxWorkers: 2, MinSpareWorkers: 2, ErrRespawnInterval: -1, CrashLoop: prefork.CrashLoop{Failures: 3}, TrapSignals: hupAndTerm}, nil, nil)
			done := r.startLoop()
			time.Sleep(time.Second)
			sender, other := r.process(1), r.process(2)
			for rest := data; len(rest) > 0; {
				n := min(int(step)+1, len(rest))
				sender.Send(rest[:n])
				rest = rest[n:]
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			if len(other.Signals()) != 0 || r.NumWorkers() != 2 {
				t.Errorf("after %q the other worker received %v, and there are %d workers", data, other.Signals(), r.NumWorkers())
			}
			r.mu.Lock()
			for _, e := range r.exits {
				if e.Ordinal == 2 {
					t.Errorf("after %q the other worker ended: %v", data, e)
				}
			}
			r.mu.Unlock()
			r.Deliver(term)
			<-done
		})
	})
}

// A worker whose message has arrived, but not yet its note, is ready: the manager
// reads the messages of starting workers before their readiness timeout counts.
func TestReadyMessageBeforeItsNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, prefork.Config{MaxWorkers: 1, Readiness: prefork.Readiness{Timeout: time.Second}},
			options{onStart: func(*proctest.Process) {}, wrap: func(p *proctest.Process) proc.Process {
				return &late{p, wire.Append(nil, wire.Ready{})}
			}})
		done := r.startLoop()
		time.Sleep(time.Minute)
		if n := r.count("ready"); n != 1 {
			t.Errorf("%d workers became ready, want 1: %q", n, r.eventLog())
		}
		r.wantSignals(1)
		r.Deliver(term)
		<-done
	})
}

// The last messages of a worker are read before its exit counts, also if it was
// throttled.
func TestLastMessagesOfThrottledWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1}, func(p *proctest.Process) {
			if p.ID > 1 {
				reachStart(p)
			}
		}, nil)
		done := r.startLoop()
		synctest.Wait()
		p := r.process(1)
		p.Send(bytes.Repeat(wire.Append(nil, wire.StatusChanged{}), 256)) // the budget of a period
		synctest.Wait()
		send(p, wire.Ready{})
		p.Exit(proc.Status{})
		synctest.Wait()
		log := r.eventLog()
		if i := slices.IndexFunc(log, func(ev string) bool { return strings.Contains(ev, "(slot 0, generation 1) ready") }); i != 3 {
			t.Errorf("the first worker was not ready before its exit: %q", log)
		}
		r.Deliver(term)
		<-done
	})
}
