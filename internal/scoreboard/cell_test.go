//go:build unix

package scoreboard

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func noRing() { panic("a ring") }

// bytes are the cell's memory.
func (c *Cell) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(c.page)), size) }

func TestLayout(t *testing.T) {
	if n := unsafe.Sizeof(page{}); n != size {
		t.Errorf("a page has %d bytes, want %d", n, size)
	}
	// It is read by other builds of the program: what stands here must not change without the version.
	c, w := pair(t, noRing)
	w.Set('R')
	w.Served(0x102)
	w.Beat()
	var got []uint64
	for i := range 5 {
		got = append(got, *(*uint64)(unsafe.Pointer(&c.bytes()[8*i])))
	}
	if want := "[70667363656c6c01 10152 102 1 0]"; fmt.Sprintf("%x", got) != want {
		t.Errorf("in memory: %x, want %s", got, want)
	}
}

// What the worker says is what the manager reads.
func TestRead(t *testing.T) {
	c, w := pair(t, noRing)
	for _, step := range []struct {
		name string
		do   func()
		want Status
		busy bool
	}{
		{"nothing", func() {}, Status{C: None}, false},
		{"idle", func() { w.Set(Idle) }, Status{C: Idle, Changes: 1}, false},
		{"busy", func() { w.Set('R') }, Status{C: 'R', Changes: 2}, true},
		{"the same again", func() { w.Set('R') }, Status{C: 'R', Changes: 3}, true},
		{"busy by the byte 0", func() { w.Set(0) }, Status{C: 0, Changes: 4}, true},
		{"busy by the byte 255", func() { w.Set(255) }, Status{C: 255, Changes: 5}, true},
		{"a beat", w.Beat, Status{C: 255, Changes: 5, Beats: 1}, true},
		{"served", func() { w.Served(3); w.Served(2) }, Status{C: 255, Changes: 5, Beats: 1, Served: 5}, true},
		{"served nothing", func() { w.Served(0); w.Served(math.MinInt) }, Status{C: 255, Changes: 5, Beats: 3, Served: 5}, true},
		{"none", func() { w.Set(None) }, Status{C: None, Changes: 6, Beats: 3, Served: 5}, false},
	} {
		step.do()
		if got := c.Read(); got != step.want || got.Busy() != step.busy {
			t.Errorf("%s: %+v, busy %t; want %+v, %t", step.name, got, got.Busy(), step.want, step.busy)
		}
	}
	c.Close()
	c.Close()
	if got := c.Read(); got != (Status{C: None}) {
		t.Errorf("closed: %+v", got)
	}
	w.Set('W') // the worker's mapping is its own
}

// The number of changes wraps around and touches nothing else.
func TestChangesWrap(t *testing.T) {
	c, w := pair(t, noRing)
	w.Set(Idle)
	c.page.state.Store(c.page.state.Load() | ^(oneChange - 1))
	w.Set('R')
	if got := c.Read(); got != (Status{C: 'R'}) {
		t.Errorf("%+v", got)
	}
}

func TestNoCell(t *testing.T) {
	var w *Writer
	w.Set('R')
	w.Served(1)
	w.Beat()
}

func TestAllocations(t *testing.T) {
	c, w := pair(t, noRing)
	for name, f := range map[string]func(){
		"Set": func() { w.Set('R'); w.Set(Idle) }, "Served": func() { w.Served(1) }, "Beat": w.Beat, "Read": func() { c.Read() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// What no worker writes damages the cell, for good: its worker is busy, keeps its last good counts, and has no bell.
func TestDamaged(t *testing.T) {
	for name, write := range map[string]func(p *page){
		"bits that are zero": func(p *page) { p.state.Store(statusSet | Idle | 1<<13) },
		"never set":          func(p *page) { p.state.Store(Idle) },
		"served less":        func(p *page) { p.served.Store(4) },
		"served too much":    func(p *page) { p.served.Store(maxCount + 1) },
		"everything":         func(p *page) { p.state.Store(^uint64(0)); p.served.Store(^uint64(0)) },
	} {
		c, w := pair(t, noRing)
		w.Served(5)
		w.Set(Idle)
		want := c.Read()
		want.C, want.Damaged = '?', true
		write(c.page)
		for i := range 3 {
			if got := c.Read(); got != want || !got.Busy() {
				t.Errorf("%s, read %d: %+v, want %+v", name, i, got, want)
			}
			c.page.state.Store(statusSet | Idle | oneChange)
			c.page.served.Store(6)
			var bell Bell
			if idle := bell.Post([]*Cell{c}, 1, 1); idle != 0 || c.page.state.Load()&bells != 0 {
				t.Errorf("%s: %d idle, state %#x", name, idle, c.page.state.Load())
			}
		}
	}
}

// Goroutines of a worker publish at the same time, among themselves and while the manager arms the cell, and nothing is
// lost.
func TestGoroutines(t *testing.T) {
	const each = 20_000
	for name, looking := range map[string]bool{"alone": false, "looked at": true} {
		t.Run(name, func(t *testing.T) {
			c, w := pair(t, func() {})
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					for range each {
						w.Set("RW_K"[i])
						w.Served(2)
						w.Beat()
					}
				})
			}
			done := make(chan struct{})
			go func() {
				all.Wait()
				close(done)
			}()
			for looking {
				var bell Bell
				bell.Post([]*Cell{c}, 1, 0)
				select {
				case <-done:
					looking = false
				default:
				}
			}
			<-done
			if s := c.Read(); s.Damaged || s.Changes != 4*each || s.Beats != 4*each || s.Served != 8*each {
				t.Errorf("%+v after %d of each from 4 goroutines", s, each)
			}
		})
	}
}

// What Open refuses.
func TestOpen(t *testing.T) {
	file := func(content []byte) int {
		fd := newFile(t)
		t.Cleanup(func() { unix.Close(fd) })
		if _, err := unix.Pwrite(fd, content, 0); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	c, fd := newCell(t)
	defer unix.Close(fd)
	r, _ := pipe(t)
	next := append([]byte(nil), c.bytes()...)
	*(*uint64)(unsafe.Pointer(&next[0]))++
	for name, try := range map[string]struct {
		fd   int
		want string
	}{
		"no descriptor":   {1 << 20, "bad file descriptor"},
		"a pipe":          {int(r.Fd()), "not a cell"},
		"empty":           {file(nil), "not a cell"},
		"short":           {file(make([]byte, size-1)), "not a cell"},
		"zeros":           {file(make([]byte, size)), "not a cell"},
		"another version": {file(next), "layout 2, this program's 1"},
	} {
		if w, err := Open(try.fd, noRing); err == nil || !strings.Contains(err.Error(), try.want) || w != nil {
			t.Errorf("%s: %v, want %q", name, err, try.want)
		}
	}
	for name, fd := range map[string]int{"no descriptor": 1 << 20, "a pipe": int(r.Fd()), "a cell": fd, "read-only": readOnly(t)} {
		if c, err := New(fd); err == nil || c != nil {
			t.Errorf("New of %s: no error", name)
		}
	}
}

func readOnly(t *testing.T) int {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// obey does what it is told.
var obeyProgram = program("obey", func() {
	w := open()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done", in.Text()) {
		switch command := in.Text(); command {
		case "serve":
			w.Served(1)
		case "beat":
			w.Beat()
		default:
			w.Set(command[0])
		}
	}
})

// Processes share the memory, each with a cell of its own, and more come while others run.
func TestProcesses(t *testing.T) {
	var workers []*worker
	for i := range 4 {
		w := start(t, obeyProgram)
		workers = append(workers, w)
		w.do(string(rune('A' + i)))
		w.do("serve")
		w.do("beat")
		for k, w := range workers {
			want := Status{C: byte('A' + k), Served: 1, Beats: 1, Changes: 1}
			if got := w.Read(); got != want {
				t.Errorf("worker %d of %d: %+v, want %+v", k, i+1, got, want)
			}
		}
	}
	var bell Bell
	cells := []*Cell{workers[0].Cell, workers[1].Cell}
	workers[0].do("_")
	if idle := bell.Post(cells, 1, 1); idle != 1 {
		t.Fatalf("%d idle", idle)
	}
	workers[0].do("R")
	workers[0].heard()
	if idle := bell.Post(cells, 0, 0); idle != 0 {
		t.Fatalf("%d idle", idle)
	}
	workers[1].do("_")
	workers[1].heard()
}

// scribble publishes without end, several goroutines at once.
var scribbleProgram = program("scribble", func() {
	w := open()
	for i := range 3 {
		go func() {
			for {
				w.Set("RW_"[i])
				w.Served(1)
				w.Beat()
			}
		}()
	}
	fmt.Println("up")
	select {}
})

// A worker killed in the middle of its writes leaves a state that can be read, and armed.
func TestKilled(t *testing.T) {
	for range 5 {
		w := start(t, scribbleProgram)
		w.expect("up")
		var bell Bell
		for first := w.Read(); w.Read().Served < first.Served+1000; {
			bell.Post([]*Cell{w.Cell}, 1, 0)
			if s := w.Read(); s.Damaged {
				t.Fatalf("damaged while it runs: %+v", s)
			}
		}
		if err := syscall.Kill(w.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.reap()
		s := w.Read()
		if s.Damaged || !strings.ContainsRune("RW_", rune(s.C)) || s != w.Read() {
			t.Errorf("after its end: %+v", s)
		}
		idle := 1
		if s.Busy() {
			idle = 0
		}
		if got := bell.Post([]*Cell{w.Cell}, 1, 0); got != idle {
			t.Errorf("%d idle with %+v", got, s)
		}
	}
}

// A worker that truncates a file that could not be sealed damages its own cell alone.
func TestTruncatedFile(t *testing.T) {
	fd, err := unlinkedFile()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := Open(fd, noRing)
	if err != nil {
		t.Fatal(err)
	}
	w.Set(Idle)
	w.Served(7)
	if got := c.Read(); got != (Status{C: Idle, Served: 7, Changes: 1}) {
		t.Fatalf("%+v", got)
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	var bell Bell
	if idle := bell.Post([]*Cell{c}, 1, 0); idle != 0 {
		t.Errorf("%d idle", idle)
	}
	for range 2 {
		if got := c.Read(); !got.Damaged || !got.Busy() || got.Served != 7 {
			t.Errorf("%+v", got)
		}
	}
}
