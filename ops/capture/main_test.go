package capture

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// A memory is a Sink that keeps everything. If gate is not nil, each Write takes a
// token of it.
type memory struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	gate   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newMemory() *memory { return &memory{closed: make(chan struct{})} }

func newGated() *memory {
	m := newMemory()
	m.gate = make(chan struct{})
	return m
}

func (m *memory) Write(p []byte) (int, error) {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-m.closed:
			return 0, os.ErrClosed
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buf.Write(p)
}

func (m *memory) Close(context.Context) error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buf.String()
}

// newCapture returns a Capture that is closed at the end of the test.
func newCapture(t testing.TB, cfg Config) *Capture {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

// A writer stands for a worker: it writes to the pipes, of which it has
// duplicates as a process would.
type writer struct {
	*Worker
	out, err *os.File
}

func start(t testing.TB, c *Capture, slot, pid int) *writer {
	t.Helper()
	return startAs(t, c, c.cfg.Name, slot, pid)
}

func startAs(t testing.TB, c *Capture, name string, slot, pid int) *writer {
	t.Helper()
	w, err := c.OpenAs(name, slot)
	if err != nil {
		t.Fatal(err)
	}
	out, err1 := duplicate(w.Stdout)
	e, err2 := duplicate(w.Stderr)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	w.Started(pid)
	x := &writer{w, out, e}
	t.Cleanup(x.exit)
	return x
}

func (w *writer) print(s string) { w.out.WriteString(s) }

// exit closes the pipes as the exit of a process without children does.
func (w *writer) exit() {
	w.out.Close()
	w.err.Close()
}

func (w *writer) end() {
	w.exit()
	w.Ended(nil)
}

func closeAll(t testing.TB, c *Capture) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
}

func texts(lines []Line) string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return strings.Join(all, "|")
}
