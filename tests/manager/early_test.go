//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// A worker that exits without an error before it is ready writes no reason. The
// log says once how far it has come, and only if that is the reason.
func TestWorkerExitsEarly(t *testing.T) {
	const early, run, explicit = "exited without an error before it", "reached Run, StartFunc or Start", "called Worker.Ready"
	exit := func(status proc.Status) func(*proctest.Process) {
		return func(p *proctest.Process) { p.Exit(status) }
	}
	for _, c := range []struct {
		name    string
		cfg     prefork.Config
		onStart func(*proctest.Process)
		want    string
	}{
		{"always", prefork.Config{}, exit(proc.Status{}), run},
		{"once", prefork.Config{Restart: prefork.RestartNever}, exit(proc.Status{}), run},
		{"without backoff", prefork.Config{ErrRespawnInterval: -1, CrashLoop: prefork.CrashLoop{Failures: 20}}, exit(proc.Status{}), run},
		{"a standby", prefork.Config{Standby: 1}, exit(proc.Status{}), run},
		{"a code that means success", prefork.Config{SuccessCodes: []int{3}}, exit(proc.Status{Code: 3}), run},
		{"before Ready", prefork.Config{Readiness: prefork.Readiness{Explicit: true}}, exit(proc.Status{}), explicit},
		{"it crashes", prefork.Config{}, exit(proc.Status{Code: 1}), ""},
		{"it is killed", prefork.Config{}, exit(proc.Status{Signal: syscall.SIGKILL}), ""},
		{"it was ready", prefork.Config{}, func(p *proctest.Process) {
			reachStart(p)
			time.AfterFunc(time.Second, func() { p.Exit(proc.Status{}) })
		}, ""},
		{"stopped", prefork.Config{}, func(*proctest.Process) {}, ""},
		{"a Command", prefork.Config{Command: []string{"/bin/sh"}, Readiness: prefork.Readiness{After: time.Second}}, exit(proc.Status{}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			synctest.Test(t, func(t *testing.T) {
				c.cfg.MaxWorkers = 2
				c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
				r := newRig(t, c.cfg, c.onStart, endOnTerm)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				<-r.startRun(ctx)
			})
			if n := strings.Count(log.String(), early); n != min(len(c.want), 1) || !strings.Contains(log.String(), c.want) {
				t.Errorf("the log has it %d times, want it with %q:\n%s", n, c.want, &log)
			}
		})
	}
}

// The error of a crash loop has the last failure.
func TestCrashLoopHasTheLastFailure(t *testing.T) {
	for _, c := range []struct {
		name    string
		onStart func(*proctest.Process)
		fails   error
		want    string
	}{
		{"crash", func(p *proctest.Process) { p.Exit(proc.Status{Code: 7}) }, nil, "exit code 7"},
		{"clean exit", func(p *proctest.Process) { p.Exit(proc.Status{}) }, nil, "finished: exit code 0"},
		{"spawn", nil, syscall.EMFILE, "ulimit -n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 2, CrashLoop: prefork.CrashLoop{Failures: 2}}, c.onStart, endOnTerm)
				if c.fails != nil {
					r.fake.FailNext(2, c.fails)
				}
				err := <-r.startRun(t.Context())
				if !errors.Is(err, prefork.ErrCrashLoop) || !strings.Contains(err.Error(), c.want) || c.fails != nil && !errors.Is(err, c.fails) {
					t.Errorf("%v, want %q", err, c.want)
				}
			})
		})
	}
}
