//go:build unix

package service_test

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("sharing", sharing) }

// sharing runs a worker that has the lock. The optional second argument is
// "orphan" for a worker that runs until the standard input ends, or "command" for
// such a Command.
func sharing() {
	s := programService()
	kind := append(os.Args, "")[2]
	cfg := prefork.Config{
		MaxWorkers: 1, OrphanTimeout: time.Hour,
		BeforeSpawn: func(_ *prefork.Manager, sp *prefork.Spawn) { s.ShareLock(sp) },
	}
	if kind == "command" { // the shell dies with the manager, and cat does not
		cfg.Command = []string{"sh", "-c", "exec 9<&0; cat <&9 & echo works; wait"}
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	detach, err := s.Attach(pm)
	if err != nil {
		log.Fatal(err)
	}
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		report("works")
		if kind == "orphan" {
			io.Copy(io.Discard, os.Stdin)
		} else {
			<-ctx.Done()
		}
		return nil
	})
	report("manager ended %v, %v", err, detach())
}

// After an orderly end, the name is free.
func TestShareLockReleased(t *testing.T) {
	s := newService(t)
	p := start(t, s, "sharing")
	p.Expect(`^works$`)
	checkRunning(t, s, p.PID())
	if got, err := s.Zap(t.Context(), service.Escalation{}); got != service.Exited || err != nil {
		t.Errorf("Zap: %v, %v", got, err)
	}
	s.Start()
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p.Expect(`^manager ended <nil>, <nil>$`)
	p.WaitGone()
}

// Workers that have the lock keep the service from starting again after their
// manager was killed.
func TestShareLock(t *testing.T) {
	for name, kind := range map[string]string{"function": "orphan", "Command": "command"} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			s := newService(t)
			p := preforktest.New(t, "sharing", s.Dir(), kind)
			p.Cmd.Stdin = r
			p.Start()
			p.Expect(`^works$`)
			p.Kill()
			p.Wait()
			if pid, running, err := s.Running(); pid != 0 || !running || err != nil {
				t.Errorf("Running: %d, %t, %v", pid, running, err)
			}
			var running *service.RunningError
			_, err = s.Begin(t.Context())
			if !errors.As(err, &running) || running.PID != 0 || !strings.Contains(err.Error(), "workers of an earlier process") {
				t.Errorf("Begin: %v", err)
			}
			s.LockTimeout = -1
			began := make(chan error)
			go func() {
				l, err := s.Begin(t.Context())
				if err == nil {
					err = l.Close()
				}
				began <- err
			}()
			w.Close()
			p.WaitGone()
			if err := <-began; err != nil {
				t.Error(err)
			}
		})
	}
}
