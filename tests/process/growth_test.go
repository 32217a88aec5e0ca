//go:build unix

package process_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("growth", growth); preforktest.Register("sized", sized) }

// grower makes its workers busy and idle, and measures the reaction of the
// manager. All times are taken in the manager.
type grower struct {
	began  map[int]time.Time // spawns, by ordinal
	ready  chan bornAt
	gone   chan int
	dialed chan dialed
	conns  map[int]net.Conn
}

type bornAt struct {
	ordinal     int
	began, done time.Time
}

type dialed struct {
	ordinal int
	conn    net.Conn
}

// growth is a dynamically sized pool that keeps two workers idle. For each
// number on its standard input it makes that many workers busy, and then idle
// again.
func growth() {
	g := &grower{began: make(map[int]time.Time), ready: make(chan bornAt, 100), gone: make(chan int, 100), dialed: make(chan dialed), conns: make(map[int]net.Conn)}
	pm := testprog.NewManager(prefork.Config{
		MinSpareWorkers: 2, MaxSpareWorkers: 2, MaxWorkers: 8, ErrRespawnInterval: -1,
		BeforeSpawn: func(_ *prefork.Manager, sp *prefork.Spawn) { g.began[sp.Ordinal] = time.Now() },
		Observe:     g.see, Logger: slog.New(slog.DiscardHandler),
	})
	if !prefork.IsWorker() {
		ln, err := net.Listen("unix", os.Args[1])
		if err != nil {
			log.Fatal(err)
		}
		go g.accept(ln)
		go g.drive(pm, ln)
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		conn, err := net.Dial("unix", os.Args[1])
		if err != nil {
			return err
		}
		w.SetStatus(prefork.StatusIdle)
		fmt.Fprintln(conn, w.Ordinal())
		go func() {
			for status := make([]byte, 1); ; {
				if _, err := conn.Read(status); err != nil {
					return
				}
				w.SetStatus(status[0])
			}
		}()
		<-w.Context().Done()
		return nil
	})
}

func (g *grower) see(ev prefork.Event) {
	switch ev := ev.(type) {
	case prefork.StateEvent:
		if ev.Worker.State == prefork.StateReady {
			g.ready <- bornAt{ev.Worker.Ordinal, g.began[ev.Worker.Ordinal], time.Now()}
		}
	case prefork.ExitEvent:
		g.gone <- ev.Exit.Ordinal
	}
}

func (g *grower) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(conn).ReadString('\n')
		ordinal, _ := strconv.Atoi(strings.TrimSpace(line))
		g.dialed <- dialed{ordinal, conn}
	}
}

// welcome waits until n workers are ready.
func (g *grower) welcome(n int) {
	for len(g.conns) < n {
		d := <-g.dialed
		g.conns[d.ordinal] = d.conn
	}
}

func (g *grower) drive(pm *prefork.Manager, ln net.Listener) {
	g.welcome(2)
	<-g.ready
	<-g.ready
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		busy, _ := strconv.Atoi(lines.Text())
		orders := []net.Conn{}
		for _, c := range g.conns {
			orders = append(orders, c)
		}
		burst := time.Now()
		for _, c := range orders[:busy] {
			io.WriteString(c, "R")
		}
		first := <-g.ready
		took, spawn := first.done.Sub(burst), first.done.Sub(first.began)
		for range busy - 1 {
			<-g.ready
		}
		g.welcome(2 + busy)
		for _, c := range g.conns {
			c.Write([]byte{prefork.StatusIdle})
		}
		for range busy {
			n := <-g.gone
			g.conns[n].Close()
			delete(g.conns, n)
		}
		testprog.Print("busy %d: took %d spawn %d", busy, took, spawn)
	}
	ln.Close()
	pm.Deliver(term)
}

// growthTimes returns medians: the time of one spawn, the time from a burst
// that makes all workers busy to the first new ready worker, and the part of it
// before the spawn.
func growthTimes(tb testing.TB, more func() bool) (spawn, burst, begin time.Duration) {
	p := preforktest.New(tb, "growth", testprog.SocketDir(tb)+"/s")
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Close()
	p.Cmd.Stdin = r
	p.Start()
	r.Close()
	var spawns, bursts, begins []time.Duration
	for more() {
		// In turns, so that other load of the machine affects both.
		for _, busy := range []int{1, 2} {
			fmt.Fprintln(w, busy)
			got := p.Expect(`^busy \d: took (\d+) spawn (\d+)$`)
			took, _ := strconv.Atoi(got[1])
			spawn, _ := strconv.Atoi(got[2])
			if busy == 1 {
				spawns = append(spawns, time.Duration(spawn))
			} else {
				bursts, begins = append(bursts, time.Duration(took)), append(begins, time.Duration(took-spawn))
			}
		}
	}
	w.Close()
	p.Wait()
	return median(spawns), median(bursts), median(begins)
}

// BenchmarkGrowth measures how long a burst waits for the first new worker. The
// metric that counts is x-spawn, the ratio of the medians. The promise is at
// most 1.5.
func BenchmarkGrowth(b *testing.B) {
	spawn, burst, begin := growthTimes(b, b.Loop)
	b.ReportMetric(float64(spawn.Microseconds()), "µs-spawn")
	b.ReportMetric(float64(burst.Microseconds()), "µs-burst")
	b.ReportMetric(float64(begin.Microseconds()), "µs-begin")
	b.ReportMetric(float64(burst)/float64(spawn), "x-spawn")
}

// The benchmark gives the figure. Beside other tests and with the race
// detector, only its order of magnitude counts.
func TestGrowthBeginsAtOnce(t *testing.T) {
	n := 0
	spawn, burst, begin := growthTimes(t, func() bool { n++; return n <= 15 })
	t.Logf("a spawn %v, from a burst to the first new worker %v: %.2f times; its spawn began after %v", spawn, burst, float64(burst)/float64(spawn), begin)
	// The time that two new workers need beside each other depends on the
	// machine. The benchmark measures it.
	if begin > spawn {
		t.Errorf("the spawn of the first new worker begins %v after a burst; a spawn takes %v", begin, spawn)
	}
}

// sized is an idle, dynamically sized pool with a Stuck.Timeout.
func sized() {
	pm := testprog.NewManager(prefork.Config{
		MinSpareWorkers: 3, MaxSpareWorkers: 5, MaxWorkers: 10, Stuck: prefork.Stuck{Timeout: time.Second},
		Recycle: prefork.Recycle{MaxRequests: 1000, MaxLifetime: time.Hour}, CrashLoop: prefork.CrashLoop{Failures: 5},
		Logger: slog.New(slog.DiscardHandler),
	})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		ctx := w.Context()
		if w.Ordinal() == 1 {
			w.SetStatus('R') // it has been busy
		}
		w.Served(1)
		w.SetStatus(prefork.StatusIdle)
		testprog.Print("up %d", os.Getpid())
		<-ctx.Done()
		return nil
	})
}

// An idle pool of dynamic size makes no wakeups, neither in the manager nor in
// a worker. With -long the test takes 10 s.
func TestIdlePoolSizedByLoad(t *testing.T) {
	if _, err := preforktest.ContextSwitches(os.Getpid()); err != nil {
		preforktest.Skipf(t, "context switches cannot be counted here: %v", err)
	}
	p := preforktest.Start(t, "sized")
	watched := []int{p.PID()}
	for _, up := range p.ExpectN(3, `^up (\d+)$`) {
		pid, _ := strconv.Atoi(up[1])
		watched = append(watched, pid)
	}
	time.Sleep(2 * time.Second) // let the start settle; nothing may happen from here on
	before := switchesOf(t, watched)
	time.Sleep(time.Duration(max(2, testprog.Times(10))) * time.Second)
	after := switchesOf(t, watched)
	t.Logf("context switches: %s", differences(before, after))
	for i := range watched {
		// Reading the board each eighth of Stuck.Timeout would be eight wakeups
		// a second. The runtime's own timer and a late page fault are noise.
		if d := after[i] - before[i]; d > 5 {
			t.Errorf("process %d switched %d times", watched[i], d)
		}
	}
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

func switchesOf(t *testing.T, pids []int) (all []int64) {
	t.Helper()
	for _, pid := range pids {
		n, err := preforktest.ContextSwitches(pid)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}
