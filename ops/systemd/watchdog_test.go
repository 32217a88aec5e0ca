//go:build linux

package systemd

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The watchdog is fed while the loop turns, and not while a hook blocks it.
func TestWatchdog(t *testing.T) {
	r := newReceiver(t)
	p := r.start("WATCHDOG_USEC=150000")
	for range 3 {
		if !r.fed(time.Minute) {
			t.Fatal("not fed")
		}
	}
	r.touch("hook")
	p.Signal(syscall.SIGHUP)
	for r.fed(300 * time.Millisecond) {
	}
	os.Remove(r.file("hook"))
	if !r.fed(time.Minute) {
		t.Error("not fed after the hook")
	}
	p.Signal(syscall.SIGTERM)
	p.Wait()
}

func TestWatchdogPeriod(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		usec, pid string
		successor bool
		want      time.Duration
		err       bool
	}{
		{"", "", false, 0, false},
		{"10000000", "", false, 10 * time.Second, false},
		{"10000000", self, false, 10 * time.Second, false},
		{"10000000", "1234567", false, 0, false},
		{"10000000", "1234567", true, 10 * time.Second, false},
		{"x", "", false, 0, true},
		{"0", "", false, 0, true},
		{"-1", "", false, 0, true},
		{"9223372036854775807", "", false, 0, true},
		{"10", "x", false, 0, true},
		{"10", "0", false, 0, true},
	} {
		got, err := watchdogPeriod(test.usec, test.pid, test.successor)
		if got != test.want || (err != nil) != test.err {
			t.Errorf("%+v: %v, %v", test, got, err)
		}
	}
}
