//go:build unix

package scoreboard

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// A pool is a set of cells in one process, with a count of notifications for
// each.
type pool struct {
	Notifier
	cells         []*Cell
	writers       []*Writer
	notifications []atomic.Int64
}

func newPool(t testing.TB, n int) *pool {
	p := &pool{notifications: make([]atomic.Int64, n)}
	for i := range n {
		c, w := pair(t, func() { p.notifications[i].Add(1) })
		p.cells, p.writers = append(p.cells, c), append(p.writers, w)
	}
	return p
}

// set sets the statuses of the workers; a blank leaves one unchanged. It
// returns the indexes of the workers that notified since the last call.
func (p *pool) set(all string) (notified string) {
	for i, c := range all {
		if c != ' ' {
			p.writers[i].Set(byte(c))
		}
	}
	for i := range p.notifications {
		if p.notifications[i].Swap(0) > 0 {
			notified += strconv.Itoa(i)
		}
	}
	return notified
}

func countIdle(cells []*Cell) (n int) {
	for _, c := range cells {
		if !c.Read().Busy() {
			n++
		}
	}
	return n
}

// Each step calls Arm and then changes statuses.
func TestNotifier(t *testing.T) {
	type step struct {
		low, high, idle int
		set             string
		notified        string
	}
	for name, steps := range map[string][]step{
		"no limits":            {{0, 4, 4, "RRRR", ""}, {0, 4, 0, "____", ""}},
		"below zero, too high": {{-1, 9, 4, "RRRR", ""}, {-1, 9, 0, "____", ""}},
		"the first notifies":   {{2, 4, 4, "R   ", "0"}},
		"others do not":        {{2, 4, 4, "  RR", ""}},
		"each notifies once":   {{2, 4, 4, "R   ", "0"}, {0, 0, 3, "    ", ""}},
		"notifying disarms":    {{1, 4, 4, "R   ", "0"}, {0, 4, 3, "_   ", ""}, {0, 4, 4, "R   ", ""}},
		"the next is armed":    {{2, 4, 4, "R   ", "0"}, {2, 4, 3, "_   ", ""}, {2, 4, 4, "R  R", ""}, {2, 4, 2, " R  ", "1"}},
		"too few already":      {{4, 4, 4, "R   ", "0"}, {4, 4, 3, "    ", ""}},
		"more than there are":  {{9, 4, 4, "R   ", "0"}},
		"idle again is silent": {{2, 4, 4, "____", ""}, {2, 4, 4, "R   ", "0"}},
		"too many":             {{0, 4, 4, "RRRR", ""}, {0, 2, 0, "  __", ""}, {0, 2, 2, "_   ", "0"}},
		"too many already":     {{0, 4, 4, "RRR ", ""}, {0, 0, 1, "  _ ", "2"}, {0, 0, 2, "    ", ""}},
		"busy to busy":         {{0, 4, 4, "RRRR", ""}, {0, 0, 0, "WWWW", ""}, {0, 0, 0, "_   ", "0"}},
		"they stay armed":      {{2, 4, 4, "    ", ""}, {2, 4, 4, " R  ", "1"}},
		"the busy stay armed":  {{0, 4, 4, "RRRR", ""}, {0, 2, 0, "    ", ""}, {0, 2, 0, " _  ", "1"}},
		"both sides":           {{0, 4, 4, "RR__", ""}, {1, 3, 2, "    ", ""}, {1, 3, 2, "_ R ", "02"}},
		"disarmed":             {{2, 4, 4, "    ", ""}, {0, 4, 4, "RRRR", ""}},
		"all are needed":       {{4, 4, 4, "RRRR", "0123"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, 4)
			for i, s := range steps {
				if idle := p.Arm(p.cells, s.low, s.high); idle != s.idle {
					t.Errorf("step %d: %d idle, want %d", i, idle, s.idle)
				}
				if notified := p.set(s.set); notified != s.notified {
					t.Errorf("step %d: %q notified, want %q", i, notified, s.notified)
				}
			}
		})
	}
}

func TestNotifierWithoutCells(t *testing.T) {
	var n Notifier
	if idle := n.Arm(nil, 3, 5); idle != 0 {
		t.Errorf("%d idle", idle)
	}
	c, _ := pair(t, noNotify)
	n.next = 7 // there were more cells before
	c.Close()
	if idle := n.Arm([]*Cell{c}, 3, 0); idle != 0 {
		t.Errorf("a closed cell: %d idle", idle)
	}
}

// No worker notifies if nothing changes, and each armed worker at most once if
// Arm is not called again.
func TestFewNotifications(t *testing.T) {
	p := newPool(t, 20)
	p.Arm(p.cells, 5, 10)
	for _, w := range p.writers {
		w.Set(Idle)
		w.Heartbeat()
		w.Served(1)
	}
	if notified := p.set(""); notified != "" {
		t.Errorf("%s notified without a change", notified)
	}
	for range 1000 {
		for _, w := range p.writers {
			w.Set('R')
			w.Set(Idle)
		}
	}
	sum := int64(0)
	for i := range p.notifications {
		sum += p.notifications[i].Load()
	}
	if sum != 5 {
		t.Errorf("%d notifications from 5 armed workers", sum)
	}
}

// After a few notifications only quiet workers are armed, and workers that
// change their status often no longer notify.
func TestQuietWorkersStayArmed(t *testing.T) {
	p := newPool(t, 20)
	sum := 0
	for range 100 {
		p.Arm(p.cells, 5, 20)
		sum += len(p.set("R_R_R_R_R_"[:8]))
		p.set("________")
	}
	if sum > 8 {
		t.Errorf("%d notifications", sum)
	}
}

// Workers change their statuses during Arm and afterwards. If too few or too
// many are idle at the end, Arm has returned such a number or a worker has
// notified.
func TestNoCrossingIsMissed(t *testing.T) {
	const workers = 8
	p := newPool(t, workers)
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	for round := range rounds {
		low, high := rand.IntN(workers+1), rand.IntN(workers+1)
		begin := make(chan struct{})
		var all sync.WaitGroup
		for _, w := range p.writers {
			n := rand.IntN(6)
			all.Go(func() {
				<-begin
				for range n {
					w.Set("R_"[rand.IntN(2)])
				}
			})
		}
		p.set("")
		close(begin)
		seen := p.Arm(p.cells, low, high)
		all.Wait()
		idle, notified := countIdle(p.cells), p.set("")
		if notified == "" && crossed(low, high, seen, idle) {
			t.Fatalf("round %d, low %d, high %d: Arm returned %d, %d are idle, no notification", round, low, high, seen, idle)
		}
	}
}

// crossed reports whether the number of idle workers is beyond a limit that it
// was not beyond when Arm returned seen.
func crossed(low, high, seen, idle int) bool {
	return idle < low && seen >= low || idle > high && seen <= high
}

func init() { preforktest.Register("hasty", hastyProgram) }

// hastyProgram reads a number and changes its status that often, as fast
// as possible.
func hastyProgram() {
	w := open()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done", in.Text()) {
		n, err := strconv.Atoi(in.Text())
		must(err)
		for range n {
			w.Set("R_"[rand.IntN(2)])
		}
	}
}

// The same test, with processes.
func TestNoCrossingIsMissedOfProcesses(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	var workers []*worker
	var cells []*Cell
	for range 4 {
		w := start(t, "hasty")
		workers, cells = append(workers, w), append(cells, w.Cell)
	}
	notifications := func() (n int) {
		for _, w := range workers {
			n += drain(t, w.notifications)
		}
		return n
	}
	sent := make([]string, len(workers))
	sendAll := func() {
		for i, w := range workers {
			sent[i] = strconv.Itoa(1 + rand.IntN(2000))
			w.send(sent[i])
		}
	}
	expectAll := func() {
		for i, w := range workers {
			w.expect("done " + sent[i])
		}
	}
	var notifier Notifier
	for round := range rounds {
		low, high := rand.IntN(5), rand.IntN(5)
		notifications()
		sendAll()
		end := time.Now().Add(time.Duration(rand.IntN(300)) * time.Microsecond)
		seen := notifier.Arm(cells, low, high)
		for time.Now().Before(end) {
			notifications() // those before the last Arm do not count
			seen = notifier.Arm(cells, low, high)
		}
		expectAll()
		idle := countIdle(cells)
		if notifications() == 0 && crossed(low, high, seen, idle) {
			t.Fatalf("round %d, low %d, high %d: Arm returned %d, %d are idle, no notification", round, low, high, seen, idle)
		}
	}
}

// drain reads all data in a pipe, which os.Pipe made non-blocking.
func drain(t *testing.T, f *os.File) (sum int) {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	conn.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			sum += n
		}
	})
	return sum
}
