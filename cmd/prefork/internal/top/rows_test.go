package top

import (
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// The reason of an exit is seen in a terminal of 80 columns. Columns are left out for
// it, the least important first.
func TestTableWidths(t *testing.T) {
	now := time.Now()
	s := hundred()
	p := &s.Pools[0]
	p.Workers = p.Workers[:2]
	exit := client.Exit{Reason: "crashed", Code: 3, At: now.Add(-time.Second)}
	p.Slots = []client.Slot{{Slot: 0, Spawns: 4, Crashes: 3, LastExit: &exit}}
	rows := rowsOf(p, now, &newModel(Config{Interval: time.Second}).rates)
	const whole = "crashed (exit code 3) 1s ago, 3 in a row"
	for _, test := range []struct {
		width   int
		with    string
		without []string
	}{
		{0, whole, nil},
		{200, whole, nil},
		{110, whole, nil},
		{80, "crashed (exit code 3)", []string{"RESTARTS"}},
		{60, "PID", []string{"LAST EXIT", "RESTARTS", "ST "}},
		{40, "REQ/S", []string{"LAST EXIT", "PID"}},
	} {
		lines := table(rows, test.width, false)
		text := strings.Join(lines, "\n")
		if !strings.Contains(text, test.with) {
			t.Errorf("%d columns, without %q:\n%s", test.width, test.with, text)
		}
		for _, name := range test.without {
			if strings.Contains(lines[0]+" ", name) {
				t.Errorf("%d columns, with %q:\n%s", test.width, name, text)
			}
		}
		for _, line := range lines {
			if n := len([]rune(line)); test.width > 0 && n > test.width {
				t.Errorf("%d columns in %d: %s", n, test.width, line)
			}
		}
	}
}
