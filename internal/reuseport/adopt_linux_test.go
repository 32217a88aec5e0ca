package reuseport

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// names reads what each connection is answered with, and counts.
func names(t *testing.T, conns []net.Conn) map[string]int {
	t.Helper()
	got := make(map[string]int)
	for _, c := range conns {
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		got[string(b)]++
	}
	return got
}

// A worker goes, with connections in the queue of its socket and without a replacement; another adopts it.
func TestAdopt(t *testing.T) {
	g := newGroup(t, 3)
	g.steer(1)
	gone := g.listener(1)
	queued := g.connect(100)
	gone.Close()

	keeper := g.listener(0)
	wait := serve(t, keeper, "keeper")
	if err := keeper.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Adopt(2, g.dup(2)); err != nil {
		t.Fatal(err)
	}
	if got := names(t, queued); got["keeper"] != 100 {
		t.Errorf("of those that were queued: %v", got)
	}
	g.steer(0, 1, 2)
	if got := names(t, g.connect(100)); got["keeper"] != 100 {
		t.Errorf("of those that came later: %v", got)
	}
	// The slot has a worker again. The two share the socket for a moment.
	g.steer(1)
	back := g.listener(1)
	waitBack := serve(t, back, "back")
	if got := names(t, g.connect(100)); got["keeper"]+got["back"] != 100 {
		t.Errorf("while two share a socket: %v", got)
	}
	keeper.Drop(1)
	keeper.Drop(1)
	keeper.Drop(17)
	keeper.Drop(ownKey)
	if got := names(t, g.connect(100)); got["back"] != 100 {
		t.Errorf("after Drop: %v", got)
	}
	g.steer(0)
	if got := names(t, g.connect(10)); got["keeper"] != 10 {
		t.Errorf("on its own socket: %v", got)
	}
	// What was dropped can be adopted again.
	if err := keeper.Adopt(1, g.dup(1)); err != nil {
		t.Error(err)
	}
	back.Close()
	waitBack()
	g.steer(1)
	if got := names(t, g.connect(10)); got["keeper"] != 10 {
		t.Errorf("adopted again: %v", got)
	}
	keeper.Close()
	wait()
}

// A handshake that is half done when the worker of its socket goes is finished with the worker that adopts the socket.
// TCP_DEFER_ACCEPT makes the kernel ignore the client's acknowledgement, as if it were lost, until there is data.
func TestHandshakeHalfDone(t *testing.T) {
	g := newGroup(t, 2)
	for _, fd := range g.fds {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30); err != nil {
			t.Fatal(err)
		}
	}
	g.steer(1)
	gone := g.listener(1)
	half := g.connect(20)
	gone.Close()
	g.steer(0)
	if counts := g.drain(); counts[0]+counts[1] > 0 {
		t.Fatalf("%v handshakes are done", counts)
	}
	keeper := g.listener(0)
	if err := keeper.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	for _, client := range half {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c, err := keeper.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// Two workers on one socket, one of which also drops and adopts it all the time: each connection is served, once.
func TestSharedSocket(t *testing.T) {
	const n = 500
	g := newGroup(t, 2)
	a, b := g.listener(0), g.listener(1)
	waitA, waitB := serve(t, a, "a"), serve(t, b, "b")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := a.Adopt(1, g.dup(1)); err != nil {
				t.Error(err)
				return
			}
			a.Drop(1)
		}
	}()
	g.steer(1)
	if got := names(t, g.connect(n)); got["a"]+got["b"] != n {
		t.Error(got)
	}
	close(stop)
	<-stopped
	a.Close()
	b.Close()
	waitA()
	waitB()
}

func TestAdoptErrors(t *testing.T) {
	g := newGroup(t, 2)
	l := g.listener(0)
	fd := g.dup(1)
	if err := l.Adopt(5, fd); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key  int
		want error
	}{{5, unix.EEXIST}, {-1, unix.EINVAL}, {-2, unix.EINVAL}} {
		fd := g.dup(1)
		if err := l.Adopt(test.key, fd); !errors.Is(err, test.want) {
			t.Errorf("key %d: %v", test.key, err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("key %d: the descriptor is left open", test.key)
		}
	}
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Adopt(6, pair[0]); err == nil {
			t.Error("adopted what is no listening TCP socket")
		}
		if l, err := NewListener(pair[1]); err == nil {
			t.Errorf("%v made of what is no listening TCP socket", l.Addr())
		}
	}
	if err := l.Adopt(7, -1); err == nil {
		t.Error("adopted descriptor -1")
	}
	l.Close()
	fd = g.dup(1)
	if err := l.Adopt(8, fd); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Adopt after Close: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Error("Adopt after Close leaves the descriptor open")
	}
	l.Drop(5)
}
