package reuseport

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openReuse listens like a program that intends to share the port.
func openReuse(address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error { return control(conn, setReusePort) }}
	return lc.Listen(context.Background(), "tcp", address)
}

func TestBind(t *testing.T) {
	for _, test := range []struct{ network, address, want string }{
		{"tcp", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", ":0", "0.0.0.0"},
		{"tcp6", "[::1]:0", "::1"},
		{"tcp6", ":0", "::"},
		{"tcp", ":0", "::"},
		{"tcp", "localhost:0", "127.0.0.1"},
	} {
		fds, addr, err := Bind(test.network, test.address, 5)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Log(err) // no IPv6
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if host, port, _ := net.SplitHostPort(addr.String()); host != test.want && test.want != "::" || port == "0" || len(fds) != 5 {
			t.Errorf("Bind(%q, %q) is %v with %d sockets", test.network, test.address, addr, len(fds))
		}
		for i, fd := range fds {
			checkSocket(t, i, fd)
			unix.Close(fd)
		}
	}
}

func checkSocket(t *testing.T, i, fd int) {
	t.Helper()
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	fdFlags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if flags&unix.O_NONBLOCK == 0 || fdFlags&unix.FD_CLOEXEC == 0 {
		t.Errorf("socket %d is blocking or not close-on-exec", i)
	}
	if err := Steer(fd, []int{i}); err != nil {
		t.Error(err) // the socket is in no group
	}
}

func TestBindErrors(t *testing.T) {
	for _, network := range []string{"", "unix", "unixgram"} {
		if _, _, err := Bind(network, "127.0.0.1:0", 1); !errors.As(err, new(net.UnknownNetworkError)) {
			t.Errorf("Bind(%q) = %v", network, err)
		}
	}
	if _, _, err := Bind("tcp", "127.0.0.1:0", 0); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if _, _, err := Bind("tcp", "127.0.0.1:http-not", 1); err == nil {
		t.Error("no error")
	}
}

// TestSecondBind checks that a program that was started twice by mistake gets
// an error.
func TestSecondBind(t *testing.T) {
	for _, n := range []int{1, 4} {
		g := newGroup(t, n)
		if _, _, err := Bind("tcp", g.addr, n); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a second group of %d: %v", n, err)
		}
		if _, err := net.Listen("tcp", g.addr); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a plain listener after a group of %d: %v", n, err)
		}
	}
	ln, err := openReuse("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, _, err := Bind("tcp", ln.Addr().String(), 2); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a group after a listener with SO_REUSEPORT: %v", err)
	}
}

// TestBindTogether checks that at most one of several processes that bind at
// the same time gets the port.
func TestBindTogether(t *testing.T) {
	for range 50 {
		g := newGroup(t, 1)
		addr := g.addr
		unix.Close(g.fds[0])
		g.fds = nil
		results := make(chan []int)
		for range 4 {
			go func() {
				fds, _, err := Bind("tcp", addr, 3)
				if err != nil && !errors.Is(err, unix.EADDRINUSE) {
					t.Error(err)
				}
				results <- fds
			}()
		}
		winners := 0
		for range 4 {
			if fds := <-results; fds != nil {
				winners++
				g.fds = append(g.fds, fds...)
			}
		}
		if winners > 1 {
			t.Fatalf("%d groups share a port, want at most 1", winners)
		}
	}
}

// TestBindAgain checks that the remaining connections of a dead manager do not
// prevent the next one from binding the address.
func TestBindAgain(t *testing.T) {
	g := newGroup(t, 2)
	client, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	g.drain() // the server closes first, so its side is in TIME_WAIT
	client.Close()
	for _, fd := range g.fds {
		unix.Close(fd)
	}
	if g.fds, _, err = Bind("tcp", g.addr, 2); err != nil {
		t.Error(err)
	}
}

// TestOrder checks that the index of a socket in the kernel's group is its
// index in fds, also for sockets from Grow.
func TestOrder(t *testing.T) {
	g := newGroup(t, 3)
	g.steer(0, 1, 2)
	for range 4 {
		g.grow()
		last := len(g.fds) - 1
		if counts := g.spread(100); counts[last] != 0 {
			t.Errorf("before Steer names socket %d: %v", last, counts)
		}
		for i := range g.fds {
			g.steer(i)
			want := make([]int, len(g.fds))
			want[i] = 20
			if counts := g.spread(20); !slices.Equal(counts, want) {
				t.Errorf("steered to %d: %v", i, counts)
			}
		}
		g.steer(0, 1, 2)
	}
}

// TestGrowFromOne checks that a group of one socket is steered from the
// beginning: the second socket receives nothing before Steer names it.
func TestGrowFromOne(t *testing.T) {
	g := newGroup(t, 1)
	g.steer()
	g.steer(0)
	g.grow()
	if counts := g.spread(50); counts[0] != 50 {
		t.Errorf("before Steer names socket 1: %v", counts)
	}
	g.steer(1)
	if counts := g.spread(50); counts[1] != 50 {
		t.Errorf("steered to 1: %v", counts)
	}
	g.steer(0)
	if counts := g.spread(50); counts[0] != 50 {
		t.Errorf("steered to 0: %v", counts)
	}
}
