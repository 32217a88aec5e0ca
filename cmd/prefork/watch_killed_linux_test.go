package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/journal"
)

var watchKills = flag.Int("watch.kills", 2, "how often TestWatchKilled kills the manager")

// hostile is a program that leaves as much behind as it can. Only one copy of it
// may run at a time.
const hostile = `
[ -e "$B/running" ] && kill -0 $(cat "$B/running") 2>/dev/null && echo TWICE >>"$B/faults"
echo $$ >"$B/running"
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM HUP; touch "$0/left"; while :; do sleep 1000; done' "$B" &
(setsid sleep 1000 >/dev/null 2>&1 &)
sleep 1000 &
while [ ! -e "$B/left" ]; do :; done; rm "$B/left"
echo up
while :; do sleep 1000; done`

// After SIGKILL of the manager or of a process above it, nothing that the services
// have started is left. Started again at once, it is refused until then, and no
// program runs twice (13, 14, 15, C10, C11, C12). The journal says which process
// was of which service (24, C3).
func TestWatchKilled(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.program("hostile", "B='"+w.base+"'"+hostile)
	w.start()
	w.Expect(`\] up$`)
	for round := range *watchKills {
		st, err := journal.PreviousState(w.journal)
		if err != nil || len(st.Workers) != 1 || st.Workers[0].Pool != "hostile" {
			t.Fatalf("the journal has %+v, %v", st, err)
		}
		if running, err := os.ReadFile(w.base + "/running"); err != nil || strings.TrimSpace(string(running)) != strconv.Itoa(st.Workers[0].PID) {
			t.Errorf("the journal has process %d, and %q runs, %v", st.Workers[0].PID, running, err)
		}
		// The manager, the reaper above it, or its guard.
		victim := []int{st.PID, parent(t, st.PID), w.PID()}[round%3]
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		last := *w
		for refused := 0; ; refused++ {
			w.start()
			if w.Expect(`already running|\] up$`)[0] != "already running" {
				t.Logf("refused %d times, up after %v", refused, time.Since(killed).Round(time.Millisecond))
				break
			}
			w.expectExit(0)
		}
		last.Wait()
		last.WaitGone() // also the output of all that the services have started
	}
	w.Signal(syscall.SIGQUIT)
	w.expectExit(1)
	if faults, err := os.ReadFile(w.base + "/faults"); err == nil {
		t.Errorf("two copies ran at a time: %s", faults)
	}
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	ppid, _ := strconv.Atoi(regexp.MustCompile(`\nPPid:\t(\d+)\n`).FindStringSubmatch(string(status))[1])
	return ppid
}
