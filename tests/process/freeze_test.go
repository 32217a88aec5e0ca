//go:build unix

package process_test

import (
	"context"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("frozen", frozen) }

// frozen is a program whose worker needs 0.8 s to stop, in which it runs.
func frozen() {
	testprog.NewManager(prefork.Config{MaxWorkers: 1, StopTimeout: 1500 * time.Millisecond}).Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("here %d", os.Getpid())
		<-ctx.Done()
		testprog.Print("stopping")
		for range 8 {
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	})
}

// A manager that was frozen together with its workers does not count that time
// for StopTimeout.
func TestFrozenTimeDoesNotCount(t *testing.T) {
	p := preforktest.Start(t, "frozen")
	worker, _ := strconv.Atoi(p.Expect(`^here (\d+)$`)[1])
	p.Signal(syscall.SIGTERM)
	p.ExpectAll(`^stopping$`, `worker stopping`) // both have handled the signal
	p.Signal(syscall.SIGSTOP)
	syscall.Kill(worker, syscall.SIGSTOP)
	time.Sleep(2500 * time.Millisecond)
	p.Signal(syscall.SIGCONT)
	syscall.Kill(worker, syscall.SIGCONT)
	p.Expect(`worker gone.*status="exit code 0"`)
	p.Wait()
}
