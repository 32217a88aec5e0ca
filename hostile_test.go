//go:build unix

package prefork

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// A worker that floods the manager is read a little at a time: the others are served meanwhile, and what it says is heard
// in the end.
func TestFloodOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxWorkers: 2, ErrRespawnInterval: -1}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Second)
		flooder, other := r.process(1), r.process(2)
		const flood = 100_000
		bell := wire.Append(nil, wire.Bell{})
		flooder.Say(append(bytes.Repeat(bell, flood), wire.Append(nil, wire.Retire{})...))
		other.Exit(proc.Status{Code: 1})
		synctest.Wait()
		if n := len(r.fake.Started()); n != 3 {
			t.Errorf("%d workers were started, want 3: the other one was not replaced", n)
		}
		if n := flooder.Unread(); n < flood*len(bell)*9/10 {
			t.Errorf("%d of %d bytes are left: one turn read too much", n, flood*len(bell))
		}
		before := flooder.Unread()
		time.Sleep(time.Second)
		if read := before - flooder.Unread(); read == 0 || read > flood*len(bell)/2 {
			t.Errorf("%d of %d bytes were read in a second", read, before)
		}
		time.Sleep(time.Minute)
		if n := flooder.Unread(); n != 0 {
			t.Errorf("%d bytes are left after a minute", n)
		}
		if n := len(r.fake.Started()); n != 4 {
			t.Errorf("%d workers were started, want 4: the last message was not heard", n)
		}
		// At its end a worker is read once more, and not to the end of what it, or who else has its socket, goes on to write.
		flooder = r.process(3)
		flooder.Say(bytes.Repeat(bell, flood))
		flooder.Exit(proc.Status{})
		synctest.Wait()
		if n := len(r.fake.Started()); n != 5 {
			t.Errorf("%d workers were started, want 5", n)
		}
		r.Deliver(term)
		<-done
	})
}

// Whatever a worker says harms that worker alone: the others are neither signalled nor replaced, and the Manager goes on, and ends
// when it is told to.
func FuzzWorkerSays(f *testing.F) {
	for _, s := range []string{"R\x00", "B\x00B\x00", "Q\x00", "F\x03why", "S\x00", "T\x00", "A\x08\x00\x00\x00\x00\x00\x00\x00\x01", "D\x08", "R\x00Q\x00Q\x00", "\xff\xff", "P"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{MaxWorkers: 2, MinSpareWorkers: 2, ErrRespawnInterval: -1, CrashLoop: CrashLoop{Failures: 3}, TrapSignals: hupAndTerm}, nil, nil)
			done := r.startAgain()
			time.Sleep(time.Second)
			said, other := r.process(1), r.process(2)
			for rest := data; len(rest) > 0; {
				n := min(int(step)+1, len(rest))
				said.Say(rest[:n])
				rest = rest[n:]
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			if len(other.Signals()) != 0 || r.NumWorkers() != 2 {
				t.Errorf("after %q the other worker was sent %v, and there are %d workers", data, other.Signals(), r.NumWorkers())
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
