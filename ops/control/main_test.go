//go:build unix

package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	os.Setenv(client.EnvSocket, "") // in programs, too
	preforktest.Main(m, map[string]func(){"pool": poolProgram})
}

// poolProgram runs a pool whose socket is at the path of its first argument, in the
// way that the other arguments name. Files beside the socket make it misbehave:
//
//	bad     Reload fails
//	crash   workers crash
//	mute    workers never get ready
//	deaf    workers never reach a checkpoint, and ignore SIGTERM
//	hook    BeforeSpawn blocks until the file is gone
func poolProgram() {
	socket := os.Args[1]
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(socket), name))
		return err == nil
	}
	arg := func(name string) bool {
		for _, a := range os.Args[2:] {
			if a == name {
				return true
			}
		}
		return false
	}
	cfg := prefork.Config{
		MaxWorkers: 2, CrashLoop: prefork.CrashLoop{Failures: -1}, Name: os.Getenv("POOL_NAME"),
		Readiness: prefork.Readiness{Explicit: true, Timeout: 5 * time.Second}, StopTimeout: 5 * time.Second,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Signal: syscall.SIGTERM, Rolling: true},
			syscall.SIGUSR1: {Signal: syscall.SIGUSR1}, syscall.SIGUSR2: {Upgrade: true},
		},
		Reload: func() ([]byte, error) {
			if exists("bad") {
				return nil, errors.New("the configuration is bad")
			}
			return nil, nil
		},
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
			for exists("hook") {
				time.Sleep(5 * time.Millisecond)
			}
		},
	}
	if exists("mute") {
		cfg.Readiness.Timeout = 50 * time.Millisecond
	}
	if arg("impatient") {
		pingTimeout = 100 * time.Millisecond
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		testprog.Print("new: %v", err)
		return
	}
	detach, err := Attach(Config{Path: socket}, pm)
	if err != nil {
		testprog.Print("attach: %v", err)
	}
	defer detach()
	if arg("listen") {
		ln, err := pm.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		testprog.Print("listens on %s", ln.Addr())
	}
	if !prefork.IsWorker() {
		testprog.Print("open")
	}
	work := func(w *prefork.Worker) error {
		switch {
		case exists("crash"):
			return errors.New("crash")
		case exists("mute"):
			<-w.Context().Done()
			return nil
		case exists("deaf"):
			w.Context()
			w.Ready()
			select {}
		}
		w.Ready()
		w.SetStatus('R')
		w.Served(3)
		if arg("listen") {
			for pm.LogLevel().Level() != slog.LevelDebug {
				time.Sleep(time.Millisecond)
			}
			testprog.Print("worker %d logs all", w.Ordinal())
		}
		for w.Context().Err() == nil {
			select {
			case <-w.Context().Done():
			case <-w.Pausing():
				w.Checkpoint()
			}
		}
		return nil
	}
	if arg("start") {
		testprog.UntilTerm(pm, work)
		return
	}
	if err := pm.Run(context.Background(), work); err != nil {
		testprog.Print("run: %v", err)
	}
	testprog.Print("returned")
}

// startPool starts the program and waits until its socket is open.
func startPool(t *testing.T, args ...string) (*preforktest.Program, *client.Client) {
	t.Helper()
	socket := newSocketPath(t)
	p := preforktest.Start(t, "pool", append([]string{socket}, args...)...)
	p.Expect("open")
	return p, dial(t, socket)
}

// newSocketPath returns a path for sockets. Those of programs that the test has
// killed are removed at its end.
func newSocketPath(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(testprog.SocketDir(t), "s")
	t.Cleanup(func() {
		left, _ := filepath.Glob(socket + "*")
		for _, path := range left {
			os.Remove(path)
		}
	})
	return socket
}

// beside returns the path of a file beside the socket of a client.
func beside(c *client.Client, name string) string {
	return filepath.Join(filepath.Dir(c.Socket()), name)
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func dial(t testing.TB, socket string) *client.Client {
	t.Helper()
	c, err := client.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// await waits for a condition of the manager.
func await(t *testing.T, c *client.Client, condition string) {
	t.Helper()
	if ok, err := c.Wait(context.Background(), condition, "", time.Minute); err != nil || !ok {
		t.Fatalf("wait for %s: %t, %v", condition, ok, err)
	}
}

func status(t *testing.T, c *client.Client) *client.Status {
	t.Helper()
	s, err := c.Status(context.Background(), client.StatusOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func do(t *testing.T, c *client.Client, cmd client.Command) *client.Answer {
	t.Helper()
	a, err := c.Do(context.Background(), cmd)
	if err != nil {
		t.Fatalf("%s: %v", cmd.Name, err)
	}
	return a
}

// A fakeManager pretends to be a Manager. Its loop turns whenever it is asked to,
// unless it is stuck.
type fakeManager struct {
	manager // nil: a call of another method is a defect of the test

	mu      sync.Mutex
	cfg     prefork.Config
	snap    prefork.Snapshot
	queues  []prefork.QueueInfo
	stuck   bool
	store   func(prefork.Record)
	early   []prefork.Record // stored before Follow returns
	notes   []string
	calls   []string
	asked   int // for a Snapshot
	pings   int
	reload  func(ctx context.Context, f prefork.Forward) (int, error)
	upgrade func(ctx context.Context) (int, error)
	resumed func() // after Resume, if not nil
}

func (m *fakeManager) Config() prefork.Config { return m.cfg }

func (m *fakeManager) Follow(f func(prefork.Record)) (prefork.Snapshot, func()) {
	m.store = f
	snap := m.Snapshot()
	for _, r := range m.early {
		f(r)
	}
	return snap, func() {}
}

func (m *fakeManager) Snapshot() prefork.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.snap
}

func (m *fakeManager) Queues() []prefork.QueueInfo { return m.queues }

func (m *fakeManager) Ping(ctx context.Context) error {
	m.mu.Lock()
	stuck := m.stuck
	m.pings++
	m.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (m *fakeManager) Note(by, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, by+": "+text)
}

func (m *fakeManager) called(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
}

func (m *fakeManager) Reload(ctx context.Context, f prefork.Forward) (int, error) {
	m.called("reload %v", f)
	return m.reload(ctx, f)
}

func (m *fakeManager) RequestUpgrade(ctx context.Context) (int, error) { return m.upgrade(ctx) }
func (m *fakeManager) SetLogLevel(level slog.Level)                    { m.called("level %v", level) }
func (m *fakeManager) SignalAllChildren(sig os.Signal)                 { m.called("all %v", sig) }
func (m *fakeManager) Deliver(sig os.Signal)                           { m.called("deliver %v", sig) }
func (m *fakeManager) Shutdown()                                       { m.called("shutdown") }
func (m *fakeManager) Pause()                                          { m.called("pause") }

func (m *fakeManager) Resume() {
	m.called("resume")
	if m.resumed != nil {
		m.resumed()
	}
}

func (m *fakeManager) SignalWorker(ordinal int, sig os.Signal) error {
	m.called("worker %d %v", ordinal, sig)
	return nil
}

func (m *fakeManager) StopWorker(ordinal int) error {
	m.called("stop worker %d", ordinal)
	return nil
}

func (m *fakeManager) MaxWorkers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snap.MaxWorkers
}

func (m *fakeManager) SetMaxWorkers(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snap.MaxWorkers, m.snap.Settled = n, false
}

// change changes the state and reports an event.
func (m *fakeManager) change(f func(*prefork.Snapshot)) {
	m.mu.Lock()
	f(&m.snap)
	m.snap.Seq++
	seq := m.snap.Seq
	m.mu.Unlock()
	m.store(prefork.Record{Seq: seq, Time: time.Now(), Event: prefork.SettledEvent{}})
}

// A testServer is a server of pretended Managers.
type testServer struct {
	*server
	fakes      []*fakeManager
	detachOnce func() error
}

func newTestServer(t testing.TB, cfg Config, names ...string) *testServer {
	t.Helper()
	if len(names) == 0 {
		names = []string{""}
	}
	s := new(testServer)
	var pms []manager
	for _, name := range names {
		m := &fakeManager{cfg: prefork.Config{Name: name, Logger: slog.New(slog.DiscardHandler), ShutdownSignal: syscall.SIGTERM, TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
		}}}
		s.fakes, pms = append(s.fakes, m), append(pms, m)
	}
	if cfg.Path == "" {
		cfg.Path = filepath.Join(testprog.SocketDir(t), "s")
	}
	s.server = newServer(cfg, pms)
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	s.detachOnce = sync.OnceValue(s.detach)
	t.Cleanup(func() { s.detachOnce() })
	return s
}

// emit stores events of the first pool.
func (s *testServer) emit(from, to int) {
	store := s.follower(s.pools[0])
	for i := from; i <= to; i++ {
		store(prefork.Record{Seq: uint64(i), Time: time.Unix(int64(i), 0), Event: prefork.ResizeEvent{From: i, To: i + 1}})
	}
}

// connect connects to a socket and sends text.
func connect(t testing.TB, socket, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, text) // an error shows in the answer
	return conn
}

// ask sends a request and returns the status code and the body of the answer.
func ask(t testing.TB, socket, text string) (code int, body string) {
	t.Helper()
	answer, _ := io.ReadAll(connect(t, socket, text))
	fmt.Sscanf(string(answer), "HTTP/1.1 %d", &code)
	_, body, _ = strings.Cut(string(answer), "\r\n\r\n")
	return code, body
}

// streamOf opens a stream of events and returns its lines, behind the head.
func streamOf(t testing.TB, socket, target string, headers ...string) (net.Conn, *bufio.Scanner) {
	t.Helper()
	text := "GET " + target + " HTTP/1.1\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	conn := connect(t, socket, text+"\r\n")
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() && lines.Text() != "" {
	}
	return conn, lines
}

// readAll returns the rest of a connection.
func readAll(conn net.Conn) string {
	text, _ := io.ReadAll(conn)
	return string(text)
}
