//go:build unix

package process_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("frozen", frozen) }

// frozen is a program whose workers need half of StopTimeout, its argument, to
// stop. They count only time in which they run.
func frozen() {
	limit, _ := time.ParseDuration(os.Args[1])
	testprog.NewManager(prefork.Config{MaxWorkers: 6, StopTimeout: limit}).Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		testprog.Print("here %d", os.Getpid())
		<-ctx.Done()
		testprog.Print("stopping")
		for range 10 {
			time.Sleep(limit / 20)
		}
		return nil
	})
}

// A manager that was frozen together with its workers does not count that time
// for StopTimeout.
func TestFrozenTimeDoesNotCount(t *testing.T) {
	limit, freeze := 1500*time.Millisecond, 2500*time.Millisecond
	if testprog.Long() {
		limit, freeze = 2500*time.Millisecond, 4*time.Second
	}
	p := preforktest.Start(t, "frozen", limit.String())
	pids := []int{p.PID()}
	for _, m := range p.ExpectN(6, `^here (\d+)$`) {
		pid, _ := strconv.Atoi(m[1])
		pids = append(pids, pid)
	}
	p.Signal(syscall.SIGTERM)
	// The manager and the workers have handled the signal.
	p.ExpectAll(slices.Repeat([]string{`^stopping$`, `worker stopping`}, 6)...)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	time.Sleep(freeze)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	p.ExpectN(6, `worker gone.*status="exit code 0"`)
	p.Wait()
}
