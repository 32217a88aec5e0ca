package reuseport

import (
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Connections stay in the kernel's queue until somebody calls Accept: what one worker has not asked for another can have.
func TestNothingIsTakenAhead(t *testing.T) {
	g := newGroup(t, 2)
	l := g.listener(0)
	if err := l.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	c := g.connect(21)[0]
	defer c.Close()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if counts := g.drain(); counts[0]+counts[1] != 20 {
		t.Errorf("left in the queues: %v", counts)
	}
}

// The sockets take turns: one that always has a connection keeps no other from being served.
func TestTurns(t *testing.T) {
	g := newGroup(t, 3)
	l := g.listener(0)
	for i := 1; i < 3; i++ {
		if err := l.Adopt(i, g.dup(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		g.steer(i)
		g.connect(50)
	}
	for range 30 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if counts := g.drain(); slices.Max(counts)-slices.Min(counts) > 1 {
		t.Errorf("left of 50 each after 30 were accepted: %v", counts)
	}
}

func TestClose(t *testing.T) {
	g := newGroup(t, 2)
	before := openFiles()
	l := g.listener(0)
	if err := l.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	if l.Addr().String() != g.addr || l.Addr().Network() != "tcp" {
		t.Errorf("Addr %v", l.Addr())
	}
	const waiting = 3
	ended := make(chan error)
	for range waiting {
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for range waiting {
		var op *net.OpError
		if err := <-ended; !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) || op.Op != "accept" {
			t.Errorf("Accept that waited: %v", err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if err := l.SetDeadline(time.Now()); err == nil {
		t.Error("SetDeadline after Close")
	}
	if after := openFiles(); len(after) != len(before) {
		t.Errorf("open before %v, after %v", before, after)
	}
	g.connect(10) // the manager's sockets go on listening
	if counts := g.drain(); counts[0]+counts[1] != 10 {
		t.Errorf("queued after Close: %v", counts)
	}
}

func TestDeadline(t *testing.T) {
	g := newGroup(t, 2)
	l := g.listener(0)
	ended := make(chan error)
	accept := func() {
		_, err := l.Accept()
		ended <- err
	}
	check := func(when string, err error) {
		t.Helper()
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("Accept %s: %v", when, err)
		}
	}
	// The one on its own, the other with a socket adopted, and then with one that was dropped again.
	for i, change := range []func(){
		func() {},
		func() {
			if err := l.Adopt(1, g.dup(1)); err != nil {
				t.Error(err)
			}
		},
		func() { l.Drop(1) },
	} {
		l.SetDeadline(time.Time{})
		go accept()
		change()
		l.SetDeadline(time.Now())
		check("that waited", <-ended)
		g.steer(i % 2) // 0, 1, 0
		g.connect(1)
		_, err := l.Accept()
		check("after the deadline", err)
		l.SetDeadline(time.Now().Add(limit))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.SetDeadline(time.Now().Add(10 * time.Millisecond))
		_, err = l.Accept()
		check("until the deadline", err)
	}
	// A deadline stays when sockets come and go.
	l.SetDeadline(time.Now())
	if err := l.Adopt(1, g.dup(1)); err != nil {
		t.Error(err)
	}
	_, err := l.Accept()
	check("after Adopt", err)
	l.Drop(1)
	_, err = l.Accept()
	check("after Drop", err)
}

// The end of preforkhttp.Serve: a deadline, then what is queued is accepted for as long as SyscallConn shows something,
// on all sockets, then Close.
func TestLastCall(t *testing.T) {
	g := newGroup(t, 3)
	l := g.listener(0)
	for i := 1; i < 3; i++ {
		if err := l.Adopt(i, g.dup(i)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	queued := func() (yes bool) {
		conn.Control(func(fd uintptr) {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			yes = err == nil && n > 0
		})
		return yes
	}
	l.SetDeadline(time.Now())
	if queued() {
		t.Error("something is queued")
	}
	g.steer()
	g.connect(60)
	accepted := 0
	for queued() {
		l.SetDeadline(time.Now().Add(limit))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		accepted++
	}
	if accepted != 60 {
		t.Errorf("accepted %d of 60", accepted)
	}
	l.SetDeadline(time.Now())
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// A worker that has no descriptor left gets an error, as from a listener of package net, and the connection waits.
func TestNoDescriptorLeft(t *testing.T) {
	g := newGroup(t, 1)
	l := g.listener(0)
	g.connect(1)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := l.Accept()
	adoptErr := l.Adopt(1, -1)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EMFILE) || adoptErr == nil {
		t.Error(err, adoptErr)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
