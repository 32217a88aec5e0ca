//go:build unix

package service_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
)

// Zap signals a service also if its flag cannot be set, and returns why.
func TestZapWithoutFlag(t *testing.T) {
	s := newService(t)
	s.StopFile = filepath.Join(s.Dir(), "none", "stopped")
	if got, err := s.Zap(t.Context(), service.Escalation{}); got != service.NotRunning || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Zap of no process: %v, %v", got, err)
	}
	p := start(t, s, "untrapped")
	p.Expect(`^running `)
	if got, err := s.Zap(t.Context(), service.Escalation{}); got != service.StillRunning || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Zap without signals: %v, %v", got, err)
	}
	if got, err := s.Zap(t.Context(), service.Escalation{Term: time.Millisecond}); got != service.Exited || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Zap: %v, %v", got, err)
	}
	if ws := p.Wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGTERM {
		t.Errorf("the service ended by %v", ws)
	}
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, err := s.Zap(t.Context(), service.Escalation{}); got != service.Self || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Zap of this process: %v, %v", got, err)
	}
}

// If the pid is unknown, Zap reports that it has sent no signal.
func TestZapUnknownPID(t *testing.T) {
	t.Parallel() // it waits for a pid several times
	s := newService(t)
	f, err := os.Create(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	got, err := s.Zap(ctx, service.Escalation{Term: time.Millisecond})
	if got != service.StillRunning || err == nil || !strings.Contains(err.Error(), "cannot send SIGTERM: the service runs with an unknown pid") {
		t.Errorf("Zap: %v, %v", got, err)
	}
}
