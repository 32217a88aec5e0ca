package ops_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

// The tests of this file show what an hour of work does to a manager. By default
// they take a second or two; docs/OPERATIONS.md has the commands of the long runs.
var (
	dayTime     = flag.Duration("day.time", 0, "how long TestDay takes: its reloads and upgrades are spread over it")
	dayReloads  = flag.Int("day.reloads", 4, "how many reloads TestDay does")
	dayUpgrades = flag.Int("day.upgrades", 1, "how many upgrades TestDay does, of its reloads and upgrades")
)

func init() { preforktest.Register("steady", steady) }

const stormEvents = 10000

// steady is an HTTP server with the one line. SIGUSR1 has its manager print the
// number of its goroutines, and SIGUSR2 makes a storm of events.
func steady() {
	pm := testprog.NewManager(prefork.Config{
		Name: "steady", MaxWorkers: 2, Logger: slog.New(slog.DiscardHandler),
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Rolling: true},
		},
	})
	detach := ops.Attach(pm)
	ln, err := pm.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		testprog.Print("listen: %v", err)
		return
	}
	if !prefork.IsWorker() {
		testprog.Print("manager %d serves on %v", os.Getpid(), ln.Addr())
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
		go func() {
			for sig := range signals {
				if sig == syscall.SIGUSR2 {
					storm(pm)
					continue
				}
				debug.FreeOSMemory()
				testprog.Print("manager %d has %d goroutines", os.Getpid(), runtime.NumGoroutine())
			}
		}()
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	}); err != nil {
		testprog.Print("run: %v", err)
	}
	detach()
}

// storm reports events, one a turn of the loop, and prints how long the turns took.
func storm(pm *prefork.Manager) {
	took := make([]time.Duration, stormEvents)
	for i := range took {
		began := time.Now()
		pm.Note("", "storm")
		pm.Ping(context.Background())
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	testprog.Print("storm: median %d, longest %v", took[len(took)/2].Nanoseconds(), took[len(took)-1])
}

// A show is a steady program and a client of its socket.
type show struct {
	*preforktest.Program
	t       *testing.T
	c       *client.Client
	address string // of its HTTP server
	pid     int    // of the manager that is at work
}

func startShow(t *testing.T) *show {
	t.Helper()
	p, dir := newProgram(t, "steady")
	p.Start()
	s := &show{Program: p, t: t, address: p.Expect(`serves on (.+)$`)[1], pid: p.PID()}
	var err error
	if s.c, err = client.Dial(filepath.Join(dir, "steady.prefork.sock")); err != nil {
		t.Fatal(err)
	}
	s.await("settled")
	return s
}

func (s *show) dial() *client.Client {
	c, err := client.Dial(s.c.Socket())
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// status waits for longer than the 5 seconds of a Client: on a busy machine the whole
// program may have no processor for that long.
func status(c *client.Client) (*client.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.Status(ctx, client.StatusOptions{Usage: true})
}

func (s *show) await(condition string) {
	s.t.Helper()
	if ok, err := s.c.Wait(context.Background(), condition, "", time.Minute); err != nil || !ok {
		s.t.Fatalf("wait for %s: %t, %v", condition, ok, err)
	}
}

func (s *show) do(name string) *client.Answer {
	s.t.Helper()
	a, err := s.c.Do(context.Background(), client.Command{Name: name})
	if err != nil || a.Outcome != client.Done {
		s.t.Fatalf("%s: %+v, %v", name, a, err)
	}
	return a
}

// upgrade has a successor take over, and waits until all its workers are ready.
func (s *show) upgrade() {
	s.t.Helper()
	s.pid = s.do("upgrade").Successor
	s.await("settled")
}

// stop ends the program, and waits for its last manager.
func (s *show) stop() {
	s.t.Helper()
	s.do("stop")
	s.WaitGone()
}

// A footprint is what a manager uses.
type footprint struct {
	descriptors, goroutines, threads int
	memory                           int64
}

func (f footprint) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d threads, %.1f MiB", f.descriptors, f.goroutines, f.threads, float64(f.memory)/(1<<20))
}

func (s *show) footprint() (f footprint) {
	s.t.Helper()
	syscall.Kill(s.pid, syscall.SIGUSR1)
	f.goroutines, _ = strconv.Atoi(s.Expect(fmt.Sprintf(`^manager %d has (\d+) goroutines$`, s.pid))[1])
	fds, err := preforktest.Descriptors(s.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	f.descriptors = len(fds)
	if f.threads, err = preforktest.Threads(s.pid); err != nil {
		s.t.Fatal(err)
	}
	if f.memory, err = preforktest.PrivateMemory(s.pid); err != nil {
		s.t.Fatal(err)
	}
	return f
}

// Threads of a Go program come with blocking calls, and stay.
const moreThreads = 8

// moreMemory returns how much memory a manager may use more than before.
func moreMemory() int64 {
	if testprog.Race() {
		return 64 << 20
	}
	return 8 << 20
}

// expectFlat waits until the manager uses no more than before. Connections that were
// closed just now may take a moment.
func (s *show) expectFlat(before footprint) footprint {
	s.t.Helper()
	var now footprint
	for range 100 {
		now = s.footprint()
		if now.descriptors <= before.descriptors && now.goroutines <= before.goroutines &&
			now.threads <= before.threads+moreThreads && now.memory <= before.memory+moreMemory() {
			return now
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Errorf("%v; before %v", now, before)
	return now
}

// storm returns the median duration of a turn of the loop.
func (s *show) storm() float64 {
	s.t.Helper()
	syscall.Kill(s.pid, syscall.SIGUSR2)
	median, _ := strconv.ParseFloat(s.Expect(`^storm: median (\d+), `)[1], 64)
	return median
}

// stream opens a stream of events, and reads nothing.
func (s *show) stream() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("unix", s.c.Socket())
	if err != nil {
		s.t.Fatal(err)
	}
	// An error is no failure: a full server may have answered already.
	io.WriteString(conn, "GET /v1/events HTTP/1.1\r\n\r\n")
	return conn
}

// Streams that are opened and abandoned leave nothing, and 100 that never read
// neither hold up the loop nor keep memory.
func TestEventStreams(t *testing.T) {
	s := startShow(t)
	s.storm() // the ring of events is full from now on
	before := s.footprint()
	abandoned := testprog.Times(1000)
	for range abandoned {
		conn := s.stream()
		io.ReadFull(conn, make([]byte, 100))
		conn.Close()
	}
	t.Logf("before:                            %v", before)
	t.Logf("%4d streams opened and abandoned: %v", abandoned, s.expectFlat(before))

	rounds := 1
	if testprog.Long() {
		rounds = 9
	}
	var ratios []float64
	for range rounds {
		alone := s.storm()
		var conns []net.Conn
		for range 100 {
			conns = append(conns, s.stream())
		}
		crowded := s.storm()
		ratios = append(ratios, crowded/alone)
		t.Logf("median of %d turns: %.1f µs, with 100 streams that never read %.1f µs", stormEvents, alone/1000, crowded/1000)
		for _, conn := range conns {
			conn.Close()
		}
	}
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	t.Logf("a turn takes %.2f times as long, median of %d", ratio, rounds)
	if ratio > 1.2 && testprog.Long() { // one round on a busy machine proves nothing
		t.Errorf("a turn takes %.2f times as long", ratio)
	}
	t.Logf("afterwards:                        %v", s.expectFlat(before))
	s.stop()
}

// Upgrades under load, while 10 clients ask for the status: no request is refused or
// unanswered, no answer is from a manager that was replaced, and the path of the
// socket is never missing.
func TestUpgradesUnderLoad(t *testing.T) {
	s := startShow(t)
	upgrades := 2
	if testprog.Long() {
		upgrades = 100
	}
	load := loadgen.Start(loadgen.Config{Network: "tcp", Address: s.address, KeepAlive: 2, Fresh: 1, MaxTime: time.Hour})
	var managers sync.Map // their numbers by pid, as soon as they have taken over
	var last atomic.Int64
	managers.Store(s.pid, last.Load())
	clients := preforktest.StartLoad(t, 10, func(int) error {
		before := last.Load()
		c, err := client.Dial(s.c.Socket())
		if err != nil {
			return err
		}
		st, err := status(c)
		if err != nil {
			return err
		}
		if n, known := managers.Load(st.PID); known && n.(int64) < before {
			return fmt.Errorf("manager %d, number %d, answers after number %d has taken over", st.PID, n, before)
		}
		return nil
	})
	paths := preforktest.StartLoad(t, 1, func(int) error {
		_, err := os.Lstat(s.c.Socket())
		time.Sleep(100 * time.Microsecond)
		return err
	})
	for range upgrades {
		s.upgrade()
		managers.Store(s.pid, last.Load()+1)
		last.Add(1)
	}
	result := load.Stop()
	t.Logf("%d upgrades; requests: %v", upgrades, result)
	t.Logf("status: %v", clients.Stop())
	t.Logf("path: %v", paths.Stop())
	if result.Failed > 0 || clients.Stop().Failed > 0 || paths.Stop().Failed > 0 {
		t.Error("failures")
	}
	s.stop()
}

// A day of a manager: 4 clients ask for the status each 10 ms, 2 follow the events,
// and the workers and the manager are replaced again and again. What the managers
// use stays flat.
func TestDay(t *testing.T) {
	s := startShow(t)
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()

	var pause sync.RWMutex // held for writing while nothing may ask
	var asked, read atomic.Int64
	for range 4 {
		c := s.dial()
		clients.Go(func() {
			for range tick(ctx, 10*time.Millisecond) {
				pause.RLock()
				if _, err := status(c); err != nil {
					t.Errorf("status: %v", err)
					syscall.Kill(s.c.Peer().PID, syscall.SIGQUIT) // its goroutines show why
					cancel()
				}
				pause.RUnlock()
				asked.Add(1)
			}
		})
	}
	var following [2]atomic.Int64 // the managers whose events they read
	for i := range following {
		c := s.dial()
		clients.Go(func() {
			for ctx.Err() == nil {
				for e, err := range c.Events(ctx, client.EventsOptions{}) {
					if err != nil && ctx.Err() == nil {
						t.Errorf("events: %v", err)
					}
					if e.Type == client.TypeState {
						following[i].Store(int64(e.PID))
					}
					read.Add(1)
				}
			}
		})
	}
	measure := func() footprint {
		preforktest.WaitFor(t, "both streams", func() bool {
			return following[0].Load() == int64(s.pid) && following[1].Load() == int64(s.pid)
		})
		pause.Lock()
		defer pause.Unlock()
		return s.footprint()
	}
	s.do("reload") // what a first reload allocates stays
	first := measure()
	t.Logf("%4d reloads, manager %7d: %v", 0, s.pid, first)

	began := time.Now()
	steps := *dayReloads + *dayUpgrades
	every := max(1, steps/50) // lines of output
	upgraded := 0
	for i := 1; i <= steps; i++ {
		if upgraded < i**dayUpgrades/steps {
			upgraded++
			s.upgrade()
			s.do("reload")
		} else {
			s.do("reload")
		}
		if i%every == 0 || i == steps {
			measure()
			pause.Lock()
			now := s.expectFlat(first)
			pause.Unlock()
			t.Logf("%4d reloads, %2d upgrades, %7d answers, %6d events, manager %7d: %v", i-upgraded, upgraded, asked.Load(), read.Load(), s.pid, now)
		}
		if t.Failed() {
			break
		}
		time.Sleep(time.Until(began.Add(*dayTime * time.Duration(i) / time.Duration(steps))))
	}
	cancel()
	clients.Wait()
	s.stop()
}

// tick yields each d until ctx ends.
func tick(ctx context.Context, d time.Duration) func(yield func() bool) {
	return func(yield func() bool) {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				if !yield() {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}
