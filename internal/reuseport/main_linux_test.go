package reuseport

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// limit is the maximum time that a test waits for an event.
const limit = 30 * time.Second

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// A group plays the part of the manager: it holds the sockets.
type group struct {
	t    testing.TB
	fds  []int
	addr string
}

func newGroup(t testing.TB, n int) *group {
	t.Helper()
	fds, addr, err := Bind("tcp", "127.0.0.1:0", n)
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t, fds, addr.String()}
	t.Cleanup(func() {
		for _, fd := range g.fds {
			unix.Close(fd)
		}
	})
	return g
}

func (g *group) grow() {
	g.t.Helper()
	fd, err := Grow("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.fds = append(g.fds, fd)
}

func (g *group) steer(live ...int) {
	g.t.Helper()
	if err := Steer(g.fds[0], live); err != nil {
		g.t.Fatal(err)
	}
}

// dup returns a descriptor of socket i, as a worker inherits it.
func (g *group) dup(i int) int {
	g.t.Helper()
	fd, err := unix.FcntlInt(uintptr(g.fds[i]), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		g.t.Fatal(err)
	}
	return fd
}

// listener returns the Listener of the worker in slot i.
func (g *group) listener(i int) *Listener {
	g.t.Helper()
	l, err := NewListener(g.dup(i))
	if err != nil {
		g.t.Fatal(err)
	}
	if err := l.SetDeadline(time.Now().Add(limit)); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return l
}

// connect opens n connections one after the other and closes them when the test
// ends.
func (g *group) connect(n int) []net.Conn {
	g.t.Helper()
	conns := make([]net.Conn, 0, n)
	for range n {
		c, err := net.DialTimeout("tcp", g.addr, limit)
		if err != nil {
			g.t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(limit))
		c.(*net.TCPConn).SetLinger(0) // leaves no socket in TIME_WAIT
		g.t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// drain accepts all queued connections of each socket and returns their
// numbers.
func (g *group) drain() []int {
	g.t.Helper()
	counts := make([]int, len(g.fds))
	for i, fd := range g.fds {
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				g.t.Fatal(err)
			}
			unix.Close(c)
			counts[i]++
		}
	}
	return counts
}

// spread opens n connections, at most 100 at a time, and returns how many each
// socket has received.
func (g *group) spread(n int) []int {
	g.t.Helper()
	total := make([]int, len(g.fds))
	for n > 0 {
		batch := min(n, 100)
		conns := g.connect(batch)
		for i, count := range g.drain() {
			total[i] += count
		}
		for _, c := range conns {
			c.Close()
		}
		n -= batch
	}
	return total
}

// serve answers each connection with name until the listener is closed. The
// returned function waits for that.
func serve(t testing.TB, l net.Listener, name string) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("Accept returns a %T", c)
			}
			c.Write([]byte(name))
			c.Close()
		}
	}()
	return func() { <-done }
}
