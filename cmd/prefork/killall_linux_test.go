package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// A program that does not want to end, with --kill-all: none of its processes is left
// after SIGKILL of any of the processes above it, and after TERM.
func TestRunKillAll(t *testing.T) {
	t.Parallel()
	dir := preforktest.TempDir(t)
	script := `trap '' TERM HUP; (setsid sh -c 'trap "" TERM; echo daemon $$ up; sleep 1000' &); sleep 1 & wait; while :; do sleep 1000; done`
	for _, who := range []string{"guard", "reaper", "manager", "none"} {
		p := preforktest.Start(t, "prefork", "run", "--kill-all", "--stop-timeout", "1ms", "--control", "off", "--ready", "at-once",
			"--pid-file", filepath.Join(dir, "pid"), "--", "sh", "-c", script)
		p.Expect(`daemon \d+ up`)
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		manager, _ := strconv.Atoi(string(text[:max(0, len(text)-1)]))
		children, err2 := preforktest.Children(p.PID())
		if err != nil || err2 != nil || len(children) != 1 || manager == 0 {
			t.Fatalf("pid file %q, %v; children %v, %v", text, err, children, err2)
		}
		from := time.Now()
		if pid := map[string]int{"guard": p.PID(), "reaper": children[0].PID, "manager": manager}[who]; pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
			p.Wait()
		} else {
			p.Signal(syscall.SIGTERM)
			testprog.ExpectSuccess(t, p)
		}
		if who != "guard" { // which the reaper outlives for a moment
			if left, err := p.Descendants(); err != nil || len(left) > 0 {
				t.Errorf("%s: %v are left, %v", who, left, err)
			}
		}
		t.Logf("%s killed: gone after %v", who, p.WaitGone().Sub(from).Round(time.Millisecond))
		os.Remove(filepath.Join(dir, "pid"))
	}
}
