//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// The log tells what happened: it names no signal that nothing sent, no timeout
// that was not reached, and durations that can be read.
func TestLogTellsWhatHappened(t *testing.T) {
	run := func(t *testing.T, cfg prefork.Config, onSignal func(*proctest.Process, syscall.Signal), during func(*rig, context.CancelFunc), want, not []string) {
		t.Helper()
		var log bytes.Buffer
		synctest.Test(t, func(t *testing.T) {
			cfg.MaxWorkers, cfg.Logger = 1, slog.New(slog.NewJSONHandler(&log, nil))
			r := newRig(t, cfg, nil, onSignal)
			ctx, cancel := context.WithCancel(t.Context())
			done := r.startRun(ctx)
			time.Sleep(time.Minute)
			during(r, cancel)
			time.Sleep(time.Second)
			if r.NumWorkers() > 0 {
				cancel()
			}
			<-done
			cancel()
		})
		text := log.String()
		for _, part := range want {
			_, rest, found := strings.Cut(text, part)
			if text = rest; !found {
				t.Errorf("the log has no %q (after those before it):\n%s", part, &log)
			}
		}
		for _, part := range not {
			if strings.Contains(log.String(), part) {
				t.Errorf("the log has %q:\n%s", part, &log)
			}
		}
	}
	ignores := func(p *proctest.Process, sig syscall.Signal) {
		if sig == kill {
			p.Exit(proc.Status{Signal: kill})
		}
	}
	run(t, prefork.Config{}, ignores, func(r *rig, _ context.CancelFunc) {
		r.Deliver(syscall.SIGINT)
		time.Sleep(time.Second)
		r.Deliver(syscall.SIGINT)
	}, []string{`"worker killed"`, `"reason":"stopped"`, `"uptime":"1m1s"`}, []string{"stop timeout"})
	run(t, prefork.Config{}, nil, func(_ *rig, cancel context.CancelFunc) { cancel() },
		[]string{`"shutdown begins"`, `"because":"the context of Run has ended"`}, []string{"signal received"})
	run(t, prefork.Config{CrashLoop: prefork.CrashLoop{Failures: 1}, ErrRespawnInterval: -1}, nil, func(r *rig, _ context.CancelFunc) {
		r.process(1).Exit(proc.Status{Code: 1})
	}, []string{`"crash loop, shutting down"`, `"within":"1m0s"`, `"because":"crash loop"`}, []string{"signal received"})
	run(t, prefork.Config{}, nil, func(r *rig, _ context.CancelFunc) { r.receive(term) },
		[]string{`"signal received","pool":`, `"signal":"SIGTERM","forward":"SIGTERM"}`}, []string{"because", "delivered"})
	run(t, prefork.Config{}, nil, func(r *rig, _ context.CancelFunc) { r.Shutdown() },
		[]string{`"shutdown begins"`, `"because":"Manager.Shutdown was called"`}, []string{"signal received"})
	run(t, prefork.Config{}, nil, func(r *rig, _ context.CancelFunc) { r.Deliver(term) },
		[]string{`"signal delivered"`, `"signal":"SIGTERM","forward":"SIGTERM"}`}, []string{"signal received"})
	every := prefork.Signals{term: {Signal: term}, hup: {Signal: term}, usr1: {Rolling: true}, usr2: {Upgrade: true}, syscall.SIGQUIT: {}}
	run(t, prefork.Config{TrapSignals: every}, ignores, func(r *rig, _ context.CancelFunc) {
		newRig(r.t, prefork.Config{}, nil, nil) // the second Manager: no upgrade
		for _, sig := range []syscall.Signal{hup, usr1, usr2, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGINT} {
			r.Deliver(sig)
			time.Sleep(time.Second)
		}
	}, []string{
		`"reload begins"`, `"signal":"SIGHUP","because":"Manager.Deliver was called"`, `"signal delivered"`, `"signal":"SIGHUP"`,
		`"signal delivered"`, `"signal":"SIGUSR1"`, `"signal delivered"`, `"signal":"SIGUSR2"`, `"signal delivered"`, `"signal":"SIGQUIT"`,
		`"signal":"SIGINT","forward":"SIGTERM"`, `"signal delivered"`, `"forward":"SIGKILL"`,
	}, []string{"signal received"})
	calls := 0
	run(t, prefork.Config{TrapSignals: hupAndTerm, Reload: func() ([]byte, error) {
		if calls++; calls > 1 {
			return nil, errors.New("a typo")
		}
		return nil, nil
	}}, nil, func(r *rig, _ context.CancelFunc) { r.Deliver(hup) },
		[]string{`"reload begins"`, `"reload failed`, "a typo", `"next":"correct it, then reload again"`}, nil)
}

// Errors name a signal as the program does: SIGHUP, not hangup.
func TestErrorsNameSignals(t *testing.T) {
	for _, table := range []prefork.Signals{
		{hup: {Upgrade: true, Rolling: true}}, {hup: {Rolling: true, Interval: 1}}, {hup: {Interval: -1}}, {kill: {}},
		{term: {Rolling: true}},
	} {
		_, err := prefork.New(prefork.Config{TrapSignals: table})
		if err == nil || !strings.Contains(err.Error(), "SIG") || strings.Contains(err.Error(), "hangup") || strings.Contains(err.Error(), "terminated") {
			t.Errorf("%v: %v", table, err)
		}
	}
}

// A generation and an upgrade that fail say what to do next.
func TestFailuresSayWhatIsNext(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{
			MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr2: {Upgrade: true}},
		}, func(p *proctest.Process) {
			if p.ID == 1 {
				reachStart(p)
			} else {
				p.Exit(proc.Status{Code: 1})
			}
		}, nil)
		done := r.startRun(t.Context())
		time.Sleep(time.Minute)
		r.Deliver(hup)
		time.Sleep(time.Minute)
		r.Deliver(usr2)
		time.Sleep(time.Minute)
		r.Shutdown()
		<-done
	})
	for _, part := range []string{`new generation failed.* next="correct it, then reload again;`, `upgrade failed.* next="correct the program on disk`} {
		if !regexp.MustCompile(part).Match(log.Bytes()) {
			t.Errorf("the log has no %q:\n%s", part, &log)
		}
	}
}
