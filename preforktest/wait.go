package preforktest

import (
	"runtime"
	"testing"
	"time"
)

// waitTimeout bounds a wait for something that must happen. It is long because
// only a test that fails reaches it.
const waitTimeout = 30 * time.Second

// leakTimeout is how long leaks and leftover processes have to disappear. Only
// a test that fails reaches it.
const leakTimeout = 10 * time.Second

// waitLimit returns waitTimeout, or less if the deadline of the test is near:
// the panic of go test -timeout runs no cleanup and shows no output of the
// program.
func waitLimit(t testing.TB) time.Duration {
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := d.Deadline(); ok {
			return max(0, min(waitTimeout, time.Until(deadline)*9/10))
		}
	}
	return waitTimeout
}

// WaitFor calls ok repeatedly until it returns true. It is for conditions that
// send no notification, such as the exit of a process that is not a child. If
// the condition stays false too long, WaitFor fails the test with t.Fatalf and
// the condition in words.
func WaitFor(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	if limit := waitLimit(t); !poll(limit, ok) {
		t.Fatalf("preforktest: %s: not so after %v", condition, limit)
	}
}

// poll calls ok until it returns true, and reports whether that was within
// limit.
func poll(limit time.Duration, ok func() bool) bool {
	end := time.Now().Add(limit)
	runtime.Gosched() // lets goroutines exit that only need the processor
	for pause := 100 * time.Microsecond; !ok(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// waitClosed reports whether c was closed within limit.
func waitClosed(c <-chan struct{}, limit time.Duration) bool {
	select {
	case <-c:
		return true
	default:
	}
	if limit <= 0 {
		return false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}
