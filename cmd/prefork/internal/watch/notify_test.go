package watch

import (
	"testing"

	"github.com/prefork-go/prefork/ops/monitor"
	"github.com/prefork-go/prefork/ops/supervise"
)

func TestSummary(t *testing.T) {
	up := monitor.Status{Name: "up", Status: supervise.Status{PID: 7, State: supervise.Run, Up: true}}
	finishes := monitor.Status{Name: "finishes", Status: supervise.Status{PID: 8, State: supervise.Finish}}
	down := monitor.Status{Name: "down"}
	for want, all := range map[string][]monitor.Status{
		"0 up":         nil,
		"2 up, 1 down": {up, finishes, down},
		"1 up, 3 failed: gaveup, refused, waits": {
			{Name: "gaveup", GaveUp: true}, {Name: "refused", Problem: "mkdir: permission denied"}, up, {Name: "waits", Status: supervise.Status{Up: true}},
		},
	} {
		if got := summary(all, false); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := summary([]monitor.Status{up, finishes, down}, true); got != "stopping, 2 services left" {
		t.Errorf("in a stop: %q", got)
	}
}
