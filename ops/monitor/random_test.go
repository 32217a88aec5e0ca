//go:build unix

package monitor

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/preforktest"
)

var randomSeed = flag.Uint64("monitor.seed", 0, "seed of TestRandomOrders; 0 means several")

// A world has pretended processes of services. It notes if two run at a time.
type world struct {
	mu    sync.Mutex
	rng   *rand.Rand
	calm  bool           // none ends without a signal
	alive map[string]int // by directory, or by path of a program
	twice []string
}

// install makes the Managers of the test run on the processes of w.
func (w *world) install(t *testing.T) {
	proctest.Install(t, func(table *proctest.Table) {
		var mu sync.Mutex
		exits := make(map[*proctest.Process]func(proc.Status))
		exitOf := func(p *proctest.Process) func(proc.Status) {
			mu.Lock()
			defer mu.Unlock()
			return exits[p]
		}
		table.OnStart = func(p *proctest.Process) {
			key := p.Spec.Dir
			if key == "" {
				key = p.Spec.Path
			}
			var once sync.Once
			mu.Lock()
			exits[p] = func(s proc.Status) {
				once.Do(func() {
					w.mu.Lock()
					w.alive[key]--
					w.mu.Unlock()
					p.Exit(s)
				})
			}
			mu.Unlock()
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.alive[key]++; w.alive[key] > 1 {
				w.twice = append(w.twice, key)
			}
			if !w.calm && w.rng.IntN(4) == 0 {
				w.later(func() { exitOf(p)(proc.Status{Code: 1}) })
			}
		}
		table.OnSignal = func(p *proctest.Process, sig syscall.Signal) {
			switch sig {
			case syscall.SIGKILL:
				exitOf(p)(proc.Status{Signal: sig})
			case syscall.SIGTERM:
				w.mu.Lock()
				defer w.mu.Unlock()
				w.later(func() { exitOf(p)(proc.Status{Signal: sig}) })
			}
		}
	})
}

// later calls a function at once, by another goroutine, or after up to 3 ms. The
// caller holds mu.
func (w *world) later(f func()) {
	time.AfterFunc(time.Duration(w.rng.IntN(3))*time.Millisecond, f)
}

// Orders come in any sequence from several clients, processes end at any time, and
// directories go and come. Never do two processes of a service run, each order is
// answered, and the last one counts. So do the files in the end.
func TestRandomOrders(t *testing.T) {
	seeds := []uint64{*randomSeed}
	if *randomSeed == 0 {
		seeds = nil
		n := testprog.Times(20)
		if testprog.Long() {
			n = 500
		}
		for range n {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, seed := range seeds {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { randomOrders(t, seed) }) {
			t.Fatalf("again: -monitor.seed=%d", seed)
		}
	}
}

const (
	stateUp    = "up"
	stateDown  = "down"
	stateEnded = "ended"
	stateGone  = "gone"
)

func randomOrders(t *testing.T, seed uint64) {
	preforktest.NoLeaks(t)
	const steps = 40
	w := &world{rng: rand.New(rand.NewPCG(seed, 0)), alive: make(map[string]int)}
	w.install(t)
	r := newRig(t, Config{Backoff: []time.Duration{}})
	r.file("prog", "#!/bin/sh\n")
	r.service("web", "run: x", "backoff: ")
	r.service("log", "run: x", "backoff: ", "log/run: x", "log/timeout-kill: 1", "log/backoff: ")
	r.service("lazy", "run: x", "backoff: ", "down: ")
	r.start()
	var clients sync.WaitGroup
	names := []string{"prog", "web", "log", "lazy"}
	wanted := make([]string, len(names))
	for i, name := range names {
		clients.Go(func() {
			c := &issuer{rig: r, name: name, rng: rand.New(rand.NewPCG(seed, uint64(i)+1)), present: true}
			for range steps {
				c.step()
			}
			wanted[i] = c.last()
		})
	}
	clients.Wait()
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	for i, name := range names {
		r.settles(name, wanted[i])
	}
	r.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range w.twice {
		t.Errorf("two processes of %s at a time", key)
	}
	for key, n := range w.alive {
		if n != 0 {
			t.Errorf("%d processes of %s are left", n, key)
		}
	}
}

// settles waits until a service is as its last order wants it, and its files, too.
func (r *rig) settles(name, want string) {
	r.t.Helper()
	var st Status
	var stat string
	holds := func() bool {
		st = r.status(name)
		switch want {
		case stateGone:
			return st.Name == ""
		case stateEnded:
			return st.Name != "" && st.Since.IsZero() && st.Problem == ""
		case stateUp:
			if !st.Up || st.PID == 0 {
				return false
			}
		case stateDown:
			if st.Name != "" && st.Since.IsZero() && st.Problem == "" {
				return true // it had ended by an x before
			}
			if st.Since.IsZero() || st.Up || st.PID != 0 || st.Problem != "" {
				return false
			}
		}
		if st.Kind == Program {
			return true
		}
		data, _ := os.ReadFile(filepath.Join(r.dir, name, "supervise", "stat"))
		stat = string(data)
		return stat == st.String()+"\n"
	}
	for end := time.Now().Add(waitLimit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s is %q: up %v, exit %v, since %v, problem %q, ends %d; its stat is %q, want %s", name, st.String(), st.Up, st.Exit, st.Since, st.Problem, st.Ends, stat, want)
		}
	}
}

// An issuer gives orders to one service.
type issuer struct {
	*rig
	name    string
	rng     *rand.Rand
	present bool
	moved   int // directories that were moved away
}

// step gives one order.
func (c *issuer) step() {
	switch n := c.rng.IntN(20); {
	case n < 12:
		c.order("uuddotkpcxh1"[c.rng.IntN(12)])
	case n < 14: // by the FIFO, in any order with the others
		c.write("tkpch1"[c.rng.IntN(6)])
	case n < 16:
		c.changeFile()
	case n == 16 && c.isDir("log"):
		if err := c.m.Do(c.name+"/log", "udtk"[c.rng.IntN(4)]); err != nil && !c.isEnd(err) {
			c.t.Errorf("%s/log: %v", c.name, err)
		}
	case n == 17:
		c.remove()
	case n > 17:
		c.add()
	}
}

// last gives the last order, and returns the state that must follow.
func (c *issuer) last() string {
	if c.rng.IntN(2) == 0 {
		c.remove()
	}
	if c.rng.IntN(4) > 0 {
		c.add()
	}
	if !c.present {
		return stateGone
	}
	// The file down counts when the service begins, which it may have done with others.
	want := map[byte]string{'u': stateUp, 'd': stateDown, 'x': stateEnded}
	b := "udx"[c.rng.IntN(3)]
	c.order(b)
	if b == 'u' {
		c.order("pch1"[c.rng.IntN(4)])
	}
	return want[b]
}

// order gives an order by Do, which must be answered.
func (c *issuer) order(b byte) {
	answer := make(chan error, 1)
	go func() { answer <- c.m.Do(c.name, b) }()
	select {
	case err := <-answer:
		if err != nil && !c.isEnd(err) {
			c.t.Errorf("%s %c: %v", c.name, b, err)
		}
	case <-time.After(waitLimit):
		c.t.Errorf("%s %c: no answer", c.name, b)
	}
}

// isEnd reports whether an error is that of a service that is not there, or that has
// ended.
func (c *issuer) isEnd(err error) bool {
	for _, text := range []string{"there is no service", "has ended", "was removed"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

func (c *issuer) isDir(name string) bool {
	info, err := os.Stat(filepath.Join(c.dir, c.name, name))
	return err == nil && info.IsDir()
}

func (c *issuer) write(b byte) {
	f, err := os.OpenFile(filepath.Join(c.dir, c.name, "supervise", "control"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil { // a program, or one that has ended
		return
	}
	defer f.Close()
	f.Write([]byte{b})
}

func (c *issuer) changeFile() {
	switch {
	case !c.present:
	case c.name == "prog":
		c.file(c.name, fmt.Sprintf("#!/bin/sh\n# %d\n", c.rng.Uint64()))
		c.change(scan.Changed, c.name)
	case c.rng.IntN(2) == 0:
		c.file(filepath.Join(c.name, "down"), "")
	default:
		os.Remove(filepath.Join(c.dir, c.name, "down"))
		// The Manager is replaced for this.
		c.file(filepath.Join(c.name, "timeout-kill"), fmt.Sprint(1000+c.rng.IntN(2)))
	}
}

func (c *issuer) path(i int) string { return filepath.Join(c.dir, fmt.Sprint(".", c.name, i)) }

// remove moves the entry away.
func (c *issuer) remove() {
	if !c.present {
		return
	}
	if err := os.Rename(filepath.Join(c.dir, c.name), c.path(c.moved)); err != nil {
		c.t.Error(err)
	}
	c.moved++
	c.present = false
	c.change(scan.Removed, c.name)
}

// add moves the entry back, or makes another one.
func (c *issuer) add() {
	if c.present {
		return
	}
	from := c.path(c.moved - 1)
	if c.rng.IntN(2) == 0 && c.name != "prog" {
		c.service(fmt.Sprint(".", c.name, c.moved), "run: x", "backoff: ")
		from = c.path(c.moved)
		c.moved++
	}
	if err := os.Rename(from, filepath.Join(c.dir, c.name)); err != nil {
		c.t.Error(err)
	}
	c.present = true
	c.change(scan.Added, c.name)
}
