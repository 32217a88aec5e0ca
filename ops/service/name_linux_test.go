package service_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// A service runs also between the removal of its pid file and the moment at which
// it notices. Zap then signals it.
func TestRunningWithoutFile(t *testing.T) {
	s := newService(t)
	p := start(t, s, "loop")
	p.Expect(`^running `)
	thaw := preforktest.Freeze(t, p.PID())
	os.Remove(s.PIDFile)
	checkRunning(t, s, p.PID())
	var running *service.RunningError
	if _, err := s.Begin(t.Context()); !errors.As(err, &running) || running.PID != p.PID() {
		t.Errorf("Begin: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := s.Zap(ctx, service.Escalation{}); got != service.StillRunning || err != nil {
		t.Errorf("Zap while it is frozen: %v, %v", got, err)
	}
	if got, err := s.Zap(t.Context(), service.Escalation{Kill: time.Millisecond}); got != service.Exited || err != nil {
		t.Errorf("Zap: %v, %v", got, err)
	}
	thaw()
	p.Wait()
	checkRunning(t, s, 0)
}
