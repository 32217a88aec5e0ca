//go:build unix

package scoreboard

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func noNotify() { panic("unexpected notification") }

// bytes returns the memory of the cell.
func (c *Cell) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(c.page)), size) }

func TestLayout(t *testing.T) {
	if n := unsafe.Sizeof(page{}); n != size {
		t.Errorf("a page has %d bytes, want %d", n, size)
	}
	// Other builds of the program read it: these values must not change unless
	// the version does.
	c, w := pair(t, noNotify)
	w.Set('R')
	w.Served(0x102)
	w.Heartbeat()
	w.UseContext()
	var got []uint64
	for i := range 5 {
		got = append(got, *(*uint64)(unsafe.Pointer(&c.bytes()[8*i])))
	}
	if want := "[70667363656c6c01 10152 102 1 1]"; fmt.Sprintf("%x", got) != want {
		t.Errorf("in memory: %x, want %s", got, want)
	}
}

func TestRead(t *testing.T) {
	c, w := pair(t, noNotify)
	for _, step := range []struct {
		name string
		do   func()
		want Status
		busy bool
	}{
		{"nothing", func() {}, Status{C: None}, false},
		{"idle", func() { w.Set(Idle) }, Status{C: Idle, Changes: 1}, false},
		{"busy", func() { w.Set('R') }, Status{C: 'R', Changes: 2}, true},
		{"busy again", func() { w.Set('R') }, Status{C: 'R', Changes: 3}, true},
		{"busy by the byte 0", func() { w.Set(0) }, Status{C: 0, Changes: 4}, true},
		{"busy by the byte 255", func() { w.Set(255) }, Status{C: 255, Changes: 5}, true},
		{"heartbeat", w.Heartbeat, Status{C: 255, Changes: 5, Heartbeats: 1}, true},
		{"served", func() { w.Served(3); w.Served(2) }, Status{C: 255, Changes: 5, Heartbeats: 1, Served: 5}, true},
		{"served nothing", func() { w.Served(0); w.Served(math.MinInt) }, Status{C: 255, Changes: 5, Heartbeats: 3, Served: 5}, true},
		{"none", func() { w.Set(None) }, Status{C: None, Changes: 6, Heartbeats: 3, Served: 5}, false},
		{"context", w.UseContext, Status{C: None, Changes: 6, Heartbeats: 3, Served: 5, Context: true}, false},
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
	w.Set('W') // the worker has its own mapping
}

// The number of changes wraps around without effect on the other fields.
func TestChangesWrap(t *testing.T) {
	c, w := pair(t, noNotify)
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
	w.Heartbeat()
	w.UseContext()
}

func TestAllocations(t *testing.T) {
	c, w := pair(t, noNotify)
	for name, f := range map[string]func(){
		"Set": func() { w.Set('R'); w.Set(Idle) }, "Served": func() { w.Served(1) }, "Heartbeat": w.Heartbeat, "Read": func() { c.Read() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// Invalid data damages the cell for good: its worker is busy, keeps its last
// valid counters and is not armed.
func TestDamaged(t *testing.T) {
	for name, write := range map[string]func(p *page){
		"reserved bits set": func(p *page) { p.state.Store(statusSet | Idle | 1<<13) },
		"never set":         func(p *page) { p.state.Store(Idle) },
		"served less":       func(p *page) { p.served.Store(4) },
		"served too much":   func(p *page) { p.served.Store(maxCount + 1) },
		"everything":        func(p *page) { p.state.Store(^uint64(0)); p.served.Store(^uint64(0)) },
	} {
		c, w := pair(t, noNotify)
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
			var notifier Notifier
			if idle := notifier.Arm([]*Cell{c}, 1, 1); idle != 0 || c.page.state.Load()&notifyBits != 0 {
				t.Errorf("%s: %d idle, state %#x", name, idle, c.page.state.Load())
			}
		}
	}
}

// Goroutines of a worker publish concurrently while the manager arms the cell.
// No update is lost.
func TestGoroutines(t *testing.T) {
	const each = 20_000
	for name, arming := range map[string]bool{"alone": false, "armed": true} {
		t.Run(name, func(t *testing.T) {
			c, w := pair(t, func() {})
			done := publish(w, each)
			for arming && !closed(done) {
				var notifier Notifier
				notifier.Arm([]*Cell{c}, 1, 0)
			}
			<-done
			if s := c.Read(); s.Damaged || s.Changes != 4*each || s.Heartbeats != 4*each || s.Served != 8*each {
				t.Errorf("%+v after %d of each from 4 goroutines", s, each)
			}
		})
	}
}

// publish publishes from 4 goroutines, n values of each kind from each. The
// returned channel is closed when all have returned.
func publish(w *Writer, n int) chan struct{} {
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range n {
				w.Set("RW_K"[i])
				w.Served(2)
				w.Heartbeat()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	return done
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Changes of the status are not lost while the manager arms the cell, however
// often it does.
func TestArmLosesNoChange(t *testing.T) {
	c, w := pair(t, func() {})
	stop, changes := make(chan struct{}), make(chan uint64)
	go func() {
		n := uint64(0)
		for ; !closed(stop); n++ {
			w.Set("R_"[n&1])
		}
		changes <- n
	}()
	tries := 1_000_000
	if testing.Short() {
		tries = 100_000
	}
	for i := range tries {
		c.arm(i&1 == 0, i&2 == 0)
	}
	close(stop)
	if n, s := <-changes, c.Read(); s.Changes != n || s.Damaged {
		t.Errorf("%d changes, the cell has %+v", n, s)
	}
}

func TestOpenRefuses(t *testing.T) {
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
		if w, err := Open(try.fd, noNotify); err == nil || !strings.Contains(err.Error(), try.want) || w != nil {
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

func init() { preforktest.Register("obey", obeyProgram) }

// obeyProgram executes the commands that it reads.
func obeyProgram() {
	w := open()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done", in.Text()) {
		switch command := in.Text(); command {
		case "serve":
			w.Served(1)
		case "heartbeat":
			w.Heartbeat()
		default:
			w.Set(command[0])
		}
	}
}

// Each process has its own cell. Processes are added while others run.
func TestProcesses(t *testing.T) {
	var workers []*worker
	for i := range 4 {
		w := start(t, "obey")
		workers = append(workers, w)
		w.do(string(rune('A' + i)))
		w.do("serve")
		w.do("heartbeat")
		for k, w := range workers {
			want := Status{C: byte('A' + k), Served: 1, Heartbeats: 1, Changes: 1}
			if got := w.Read(); got != want {
				t.Errorf("worker %d of %d: %+v, want %+v", k, i+1, got, want)
			}
		}
	}
	var notifier Notifier
	cells := []*Cell{workers[0].Cell, workers[1].Cell}
	workers[0].do("_")
	if idle := notifier.Arm(cells, 1, 1); idle != 1 {
		t.Fatalf("%d idle", idle)
	}
	workers[0].do("R")
	workers[0].expectNotification()
	if idle := notifier.Arm(cells, 0, 0); idle != 0 {
		t.Fatalf("%d idle", idle)
	}
	workers[1].do("_")
	workers[1].expectNotification()
}

func init() { preforktest.Register("scribble", scribbleProgram) }

// scribbleProgram publishes without end from several goroutines.
func scribbleProgram() {
	w := open()
	for i := range 3 {
		go func() {
			for {
				w.Set("RW_"[i])
				w.Served(1)
				w.Heartbeat()
			}
		}()
	}
	fmt.Println("up")
	select {}
}

// A worker that is killed while it writes leaves a state that can be read and
// armed.
func TestKilled(t *testing.T) {
	for range 5 {
		w := start(t, "scribble")
		w.expect("up")
		var notifier Notifier
		for first := w.Read(); w.Read().Served < first.Served+1000; {
			notifier.Arm([]*Cell{w.Cell}, 1, 0)
			if s := w.Read(); s.Damaged {
				t.Fatalf("damaged while the worker runs: %+v", s)
			}
		}
		w.Kill()
		w.Wait()
		s := w.Read()
		if s.Damaged || !strings.ContainsRune("RW_", rune(s.C)) || s != w.Read() {
			t.Errorf("after its exit: %+v", s)
		}
		idle := 1
		if s.Busy() {
			idle = 0
		}
		if got := notifier.Arm([]*Cell{w.Cell}, 1, 0); got != idle {
			t.Errorf("%d idle with %+v", got, s)
		}
	}
}

// A worker that truncates a file that could not be sealed damages its own cell.
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
	w, err := Open(fd, noNotify)
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
	var notifier Notifier
	if idle := notifier.Arm([]*Cell{c}, 1, 0); idle != 0 {
		t.Errorf("%d idle", idle)
	}
	for range 2 {
		if got := c.Read(); !got.Damaged || !got.Busy() || got.Served != 7 {
			t.Errorf("%+v", got)
		}
	}
}
