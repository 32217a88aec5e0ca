//go:build unix

package manager_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// By default a pool whose workers never work ends, unless a worker has worked or
// Failures is negative.
func TestCrashLoopIsOnUntilAWorkerHasWorked(t *testing.T) {
	for _, c := range []struct {
		name string
		loop prefork.CrashLoop
		life func(p *proctest.Process)
		want error
	}{
		{"never ready", prefork.CrashLoop{}, func(p *proctest.Process) {
			time.AfterFunc(1500*time.Millisecond, func() { p.Exit(proc.Status{Code: 1}) })
		}, prefork.ErrCrashLoop},
		{"crash when ready", prefork.CrashLoop{}, func(p *proctest.Process) {
			reachStart(p)
			time.AfterFunc(boot+time.Millisecond, func() { p.Exit(proc.Status{Code: 1}) })
		}, prefork.ErrCrashLoop},
		{"worked for 2 s", prefork.CrashLoop{}, func(p *proctest.Process) {
			reachStart(p)
			time.AfterFunc(boot+2*time.Second, func() { p.Exit(proc.Status{Code: 1}) })
		}, nil},
		{"turned off", prefork.CrashLoop{Failures: -1}, func(p *proctest.Process) { p.Exit(proc.Status{Code: 1}) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 2, CrashLoop: c.loop}, c.life, nil)
				done := r.startRun(context.Background())
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				r.Deliver(term)
				if err := <-done; !errors.Is(err, c.want) {
					t.Errorf("Run: %v, want %v", err, c.want)
				}
			})
		})
	}
}
