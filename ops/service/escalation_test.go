package service

import (
	"testing"
	"time"
)

// Escalation.Kill counts from when the flag was set, not from SIGTERM.
func TestRemaining(t *testing.T) {
	for _, c := range []struct{ delay, elapsed, want time.Duration }{
		{0, 0, 0}, {0, time.Second, 0}, // zero means never
		{3 * time.Second, 0, 3 * time.Second},
		{3 * time.Second, time.Second, 2 * time.Second},
		{time.Second, time.Second, 1}, {time.Second, 3 * time.Second, 1},
	} {
		if got := remaining(c.delay, c.elapsed); got != c.want {
			t.Errorf("remaining(%v, %v) = %v, want %v", c.delay, c.elapsed, got, c.want)
		}
	}
}
