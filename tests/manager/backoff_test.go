//go:build unix

package manager_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// Config.Backoff reaches the policy as New copied it, and Config returns a copy.
func TestBackoffOfConfig(t *testing.T) {
	for name, test := range map[string]struct {
		list []time.Duration
		want []time.Duration // between the spawns
	}{
		"list":  {[]time.Duration{0, 5 * time.Second, 15 * time.Second}, []time.Duration{boot, 5 * time.Second, 15 * time.Second, 15 * time.Second}},
		"empty": {[]time.Duration{}, []time.Duration{boot, boot, boot, boot}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				list := slices.Clone(test.list)
				r := newRig(t, prefork.Config{MaxWorkers: 1, Backoff: list, CrashLoop: prefork.CrashLoop{Failures: -1}}, func(p *proctest.Process) {
					at = append(at, time.Now())
					reachStart(p)
					if len(at) <= len(test.want) {
						time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: 1}) })
					}
				}, nil)
				for i := range list {
					list[i] = time.Hour
					r.Config().Backoff[i] = time.Hour
				}
				done := r.startLoop()
				time.Sleep(time.Minute)
				synctest.Wait()
				for i, want := range test.want {
					if i+1 >= len(at) || at[i+1].Sub(at[i]) != want {
						t.Fatalf("spawns at %v, want gaps of %v", at, test.want)
					}
				}
				r.Shutdown()
				<-done
			})
		})
	}
}
