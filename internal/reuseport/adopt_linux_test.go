package reuseport

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// readNames reads the response of each connection and counts the names in them.
func readNames(t *testing.T, conns []net.Conn) map[string]int {
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

// TestAdopt checks that a worker can adopt the socket of a worker that has
// exited with connections in its accept queue.
func TestAdopt(t *testing.T) {
	g := newGroup(t, 3)
	g.steer(1)
	exited := g.listener(1)
	queued := g.connect(100)
	exited.Close()

	adopter := g.listener(0)
	wait := serve(t, adopter, "adopter")
	if err := adopter.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	if err := adopter.Adopt(2, g.dup(2)); err != nil {
		t.Fatal(err)
	}
	if got := readNames(t, queued); got["adopter"] != 100 {
		t.Errorf("queued connections: %v", got)
	}
	g.steer(0, 1, 2)
	if got := readNames(t, g.connect(100)); got["adopter"] != 100 {
		t.Errorf("later connections: %v", got)
	}
	// The slot has a worker again, which shares the socket for a moment.
	g.steer(1)
	back := g.listener(1)
	waitBack := serve(t, back, "back")
	if got := readNames(t, g.connect(100)); got["adopter"]+got["back"] != 100 {
		t.Errorf("while two share a socket: %v", got)
	}
	adopter.Drop(1)
	adopter.Drop(1)
	adopter.Drop(17)
	adopter.Drop(ownKey)
	if got := readNames(t, g.connect(100)); got["back"] != 100 {
		t.Errorf("after Drop: %v", got)
	}
	g.steer(0)
	if got := readNames(t, g.connect(10)); got["adopter"] != 10 {
		t.Errorf("connections on its own socket: %v", got)
	}
	// A dropped socket can be adopted again.
	if err := adopter.Adopt(1, g.dup(1)); err != nil {
		t.Error(err)
	}
	back.Close()
	waitBack()
	g.steer(1)
	if got := readNames(t, g.connect(10)); got["adopter"] != 10 {
		t.Errorf("after the second Adopt: %v", got)
	}
	adopter.Close()
	wait()
}

// TestHandshakeHalfDone checks that a handshake that has begun when a worker
// exits completes on the same socket for its adopter. TCP_DEFER_ACCEPT makes
// the kernel ignore the client's acknowledgement, as if it were lost, until
// there is data.
func TestHandshakeHalfDone(t *testing.T) {
	g := newGroup(t, 2)
	for _, fd := range g.fds {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30); err != nil {
			t.Fatal(err)
		}
	}
	g.steer(1)
	exited := g.listener(1)
	half := g.connect(20)
	exited.Close()
	g.steer(0)
	if counts := g.drain(); counts[0]+counts[1] > 0 {
		t.Fatalf("%v handshakes are complete, want none", counts)
	}
	adopter := g.listener(0)
	if err := adopter.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	for _, client := range half {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c, err := adopter.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestSharedSocket checks that each connection is served once while two workers
// share a socket, one of which drops and adopts it repeatedly.
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
	if got := readNames(t, g.connect(n)); got["a"]+got["b"] != n {
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
			t.Errorf("key %d: descriptor is left open", test.key)
		}
	}
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Adopt(6, pair[0]); err == nil {
			t.Error("adopted a socket that is not a listening TCP socket")
		}
		if l, err := NewListener(pair[1]); err == nil {
			t.Errorf("NewListener accepts a socket that is not a listening TCP socket: %v", l.Addr())
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
		t.Error("Adopt after Close: descriptor is left open")
	}
	l.Drop(5)
}
