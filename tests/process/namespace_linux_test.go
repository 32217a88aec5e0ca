package process_test

import (
	"errors"
	"log"
	"os"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("namespace", namespace) }

// namespace is a manager whose workers are each the first process of a PID
// namespace.
func namespace() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
		s.Attr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	}, Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.SpawnFailedEvent); ok && errors.Is(ev.Err, syscall.EPERM) {
			testprog.Print("not permitted")
			log.Fatal(ev.Err)
		}
	}})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("worker: pid %d, parent %d, manager known %t", os.Getpid(), os.Getppid(), w.ManagerPID() > 1)
		<-ctx.Done()
		return nil
	})
}

// "In a PID namespace compare the socket's peer, not getppid alone": a process
// that sees no parent is a worker all the same and notices its manager's death.
// It is ended then, although no signal from within can end the first process of
// a namespace.
func TestWorkersInPIDNamespaces(t *testing.T) {
	p := preforktest.Start(t, "namespace")
	if got := p.Expect(`^(not permitted|worker: pid 1, parent 0, manager known true)$`); got[1] == "not permitted" {
		preforktest.Skipf(t, "PID namespaces are not permitted here: run as root")
	}
	p.Expect(`^worker: pid 1, parent 0, manager known true$`)
	p.Kill()
	p.Wait()
	p.WaitGone()

	p = preforktest.Start(t, "namespace")
	p.ExpectN(2, `^worker: pid 1`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}
