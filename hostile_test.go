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
