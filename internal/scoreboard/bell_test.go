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
)

// A pool of cells in one process, with a count of rings for each.
type pool struct {
	Bell
	cells   []*Cell
	writers []*Writer
	rings   []atomic.Int64
}

func newPool(t testing.TB, n int) *pool {
	p := &pool{rings: make([]atomic.Int64, n)}
	for i := range n {
		c, w := pair(t, func() { p.rings[i].Add(1) })
		p.cells, p.writers = append(p.cells, c), append(p.writers, w)
	}
	return p
}

// set gives the workers their statuses, and tells which ones rang.
func (p *pool) set(all string) (rang string) {
	for i, c := range all {
		if c != ' ' {
			p.writers[i].Set(byte(c))
		}
	}
	for i := range p.rings {
		if p.rings[i].Swap(0) > 0 {
			rang += strconv.Itoa(i)
		}
	}
	return rang
}

func (p *pool) idle() (n int) {
	for _, c := range p.cells {
		if !c.Read().Busy() {
			n++
		}
	}
	return n
}

// Who rings, and who does not. Each step is a Post, then changes of status: a space is none.
func TestBell(t *testing.T) {
	type step struct {
		low, high, idle int
		set             string
		rang            string
	}
	for name, steps := range map[string][]step{
		"asked for nothing":     {{0, 4, 4, "RRRR", ""}, {0, 4, 0, "____", ""}},
		"below zero, too high":  {{-1, 9, 4, "RRRR", ""}, {-1, 9, 0, "____", ""}},
		"the first rings":       {{2, 4, 4, "R   ", "0"}},
		"others do not":         {{2, 4, 4, "  RR", ""}},
		"each rings once":       {{2, 4, 4, "R   ", "0"}, {0, 0, 3, "    ", ""}},
		"ringing takes it off":  {{1, 4, 4, "R   ", "0"}, {0, 4, 3, "_   ", ""}, {0, 4, 4, "R   ", ""}},
		"the next keeps watch":  {{2, 4, 4, "R   ", "0"}, {2, 4, 3, "_   ", ""}, {2, 4, 4, "R  R", ""}, {2, 4, 2, " R  ", "1"}},
		"too few, none rings":   {{4, 4, 4, "R   ", "0"}, {4, 4, 3, "    ", ""}},
		"more than there are":   {{9, 4, 4, "R   ", "0"}},
		"idle again is no ring": {{2, 4, 4, "____", ""}, {2, 4, 4, "R   ", "0"}},
		"too many":              {{0, 4, 4, "RRRR", ""}, {0, 2, 0, "  __", ""}, {0, 2, 2, "_   ", "0"}},
		"too many already":      {{0, 4, 4, "RRR ", ""}, {0, 0, 1, "  _ ", "2"}, {0, 0, 2, "    ", ""}},
		"busy to busy":          {{0, 4, 4, "RRRR", ""}, {0, 0, 0, "WWWW", ""}, {0, 0, 0, "_   ", "0"}},
		"they stay on watch":    {{2, 4, 4, "    ", ""}, {2, 4, 4, " R  ", "1"}},
		"the busy stay, too":    {{0, 4, 4, "RRRR", ""}, {0, 2, 0, "    ", ""}, {0, 2, 0, " _  ", "1"}},
		"both sides":            {{0, 4, 4, "RR__", ""}, {1, 3, 2, "    ", ""}, {1, 3, 2, "_ R ", "02"}},
		"called off":            {{2, 4, 4, "    ", ""}, {0, 4, 4, "RRRR", ""}},
		"each at the first":     {{4, 4, 4, "RRRR", "0123"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, 4)
			for i, s := range steps {
				if idle := p.Post(p.cells, s.low, s.high); idle != s.idle {
					t.Errorf("step %d: %d idle, want %d", i, idle, s.idle)
				}
				if rang := p.set(s.set); rang != s.rang {
					t.Errorf("step %d: %q rang, want %q", i, rang, s.rang)
				}
			}
		})
	}
}

func TestBellWithoutCells(t *testing.T) {
	var b Bell
	if idle := b.Post(nil, 3, 5); idle != 0 {
		t.Errorf("%d idle", idle)
	}
	c, _ := pair(t, noRing)
	b.next = 7 // there were more once
	c.Close()
	if idle := b.Post([]*Cell{c}, 3, 0); idle != 0 {
		t.Errorf("a closed cell: %d idle", idle)
	}
}

// Nothing rings in a pool in which nothing changes, and no more than each armed worker once in one that is not looked at.
func TestFewRings(t *testing.T) {
	p := newPool(t, 20)
	p.Post(p.cells, 5, 10)
	for _, w := range p.writers {
		w.Set(Idle)
		w.Beat()
		w.Served(1)
	}
	if rang := p.set(""); rang != "" {
		t.Errorf("%s rang though nothing changed", rang)
	}
	for range 1000 {
		for _, w := range p.writers {
			w.Set('R')
			w.Set(Idle)
		}
	}
	sum := int64(0)
	for i := range p.rings {
		sum += p.rings[i].Load()
	}
	if sum != 5 {
		t.Errorf("%d rings of 5 armed workers", sum)
	}
}

// The quiet workers keep watch in the end: after a few rings, workers that come and go ring no more.
func TestQuietWorkersKeepWatch(t *testing.T) {
	p := newPool(t, 20)
	sum := 0
	for range 100 {
		p.Post(p.cells, 5, 20)
		sum += len(p.set("R_R_R_R_R_"[:8]))
		p.set("________")
	}
	if sum > 8 {
		t.Errorf("%d rings", sum)
	}
}

// Whatever the workers do while cells are armed and afterwards: if too few are idle in the end, or too many, it was seen
// or it was rung.
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
		seen := p.Post(p.cells, low, high)
		all.Wait()
		idle, rang := p.idle(), p.set("")
		if idle < low && seen >= low && rang == "" || idle > high && seen <= high && rang == "" {
			t.Fatalf("round %d, low %d, high %d: %d were seen idle, %d are, nothing rang", round, low, high, seen, idle)
		}
	}
}

// hasty changes its status as fast as it can, so often as it is told.
var hastyProgram = program("hasty", func() {
	w := open()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done", in.Text()) {
		n, err := strconv.Atoi(in.Text())
		must(err)
		for range n {
			w.Set("R_"[rand.IntN(2)])
		}
	}
})

// The same between processes.
func TestNoCrossingIsMissedOfProcesses(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	var workers []*worker
	var cells []*Cell
	for range 4 {
		w := start(t, hastyProgram)
		workers, cells = append(workers, w), append(cells, w.Cell)
	}
	rang := func() (n int) {
		for _, w := range workers {
			n += drain(t, w.bell)
		}
		return n
	}
	var bell Bell
	for round := range rounds {
		low, high := rand.IntN(5), rand.IntN(5)
		rang()
		said := make([]string, len(workers))
		for i, w := range workers {
			said[i] = strconv.Itoa(1 + rand.IntN(2000))
			w.tell(said[i])
		}
		seen := 0
		for end := time.Now().Add(time.Duration(rand.IntN(300)) * time.Microsecond); ; {
			if seen = bell.Post(cells, low, high); time.Now().After(end) {
				break
			}
			rang() // what was rung before the last Post does not count
		}
		for i, w := range workers {
			w.expect("done " + said[i])
		}
		idle := 0
		for _, c := range cells {
			if !c.Read().Busy() {
				idle++
			}
		}
		if n := rang(); n == 0 && (idle < low && seen >= low || idle > high && seen <= high) {
			t.Fatalf("round %d, low %d, high %d: %d were seen idle, %d are, nothing rang", round, low, high, seen, idle)
		}
	}
}

// drain reads what is there; os.Pipe has made it non-blocking.
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
