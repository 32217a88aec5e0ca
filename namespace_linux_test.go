package prefork_test

import (
	"errors"
	"log"
	"os"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { programs["namespace"] = namespace }

// namespace is a manager whose workers are each the first process of a PID namespace.
func namespace() {
	pm := must(prefork.Config{MaxWorkers: 2, BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
		s.Attr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	}, Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.SpawnFailedEvent); ok && errors.Is(ev.Err, syscall.EPERM) {
			say("not permitted")
			log.Fatal(ev.Err)
		}
	}})
	untilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		say("worker: pid %d, parent %d, manager known %t", os.Getpid(), os.Getppid(), w.ManagerPID() > 1)
		<-ctx.Done()
		return nil
	})
}

// "In a PID namespace compare the socket's peer, not getppid alone": a worker that sees no parent is a worker all the
// same, hears of its manager's death, and is ended by it although no signal can end the first process from within.
func TestWorkersInPIDNamespaces(t *testing.T) {
	p := preforktest.Start(t, "namespace")
	if got := p.Expect(`^(not permitted|worker: pid 1, parent 0, manager known true)$`); got[1] == "not permitted" {
		t.Skip("PID namespaces are not permitted here: run as root")
	}
	p.Expect(`^worker: pid 1, parent 0, manager known true$`)
	p.Kill()
	p.Wait()
	p.WaitGone()

	p = preforktest.Start(t, "namespace")
	p.ExpectN(2, `^worker: pid 1`)
	p.Signal(term)
	wantSuccess(t, p)
}
