package reuseport

import (
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// TestNothingIsTakenAhead checks that connections stay in the kernel's accept
// queue until Accept is called, so that another worker can accept them.
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
		t.Errorf("queued after one Accept: %v, want 20", counts)
	}
}

// TestTurns checks that sockets take turns: one that always has a connection
// does not starve the others.
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
		t.Errorf("queued of 50 each after 30 were accepted: %v", counts)
	}
}

// TestAcceptTimeout checks that a Listener waits only acceptTimeout on a socket
// whose connection another process has accepted first. Clients of its other
// sockets wait for that long.
func TestAcceptTimeout(t *testing.T) {
	g := newGroup(t, 2)
	l := g.listener(0)
	if err := l.Adopt(1, g.dup(1)); err != nil {
		t.Fatal(err)
	}
	g.steer(1)
	const longest = 20 * time.Millisecond
	shortest := limit
	for i := 0; i < 10 && shortest > longest; i++ { // a busy machine may delay some
		g.connect(1)
		key, err := l.readyKey()
		if err != nil || key != 1 {
			t.Fatalf("socket %d is ready, %v; want 1", key, err)
		}
		g.drain()
		began := time.Now()
		ln := l.socket(key)
		if _, err := ln.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Accept without a connection: %v", err)
		}
		shortest = min(shortest, time.Since(began))
	}
	if shortest < acceptTimeout || shortest > longest {
		t.Errorf("Accept waited for %v, want acceptTimeout (%v), at most %v", shortest, acceptTimeout, longest)
	}
}

func TestClose(t *testing.T) {
	g := newGroup(t, 2)
	before, err := preforktest.Descriptors(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
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
			t.Errorf("blocked Accept: %v", err)
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
	if after, err := preforktest.Descriptors(os.Getpid()); len(after) != len(before) || err != nil {
		t.Errorf("open before %v, after %v", before, after)
	}
	g.connect(10) // the manager's sockets still listen
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
	// With its own socket only, with an adopted one, and after that was dropped.
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
		check("that was blocked", <-ended)
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
	// Adopt and Drop do not change the deadline.
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

// TestLastCall does the same as the end of preforkhttp.Serve. It sets a
// deadline, accepts queued connections for as long as SyscallConn is readable,
// on all sockets, and closes the Listener.
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
	queued := func() (ready bool) {
		conn.Control(func(fd uintptr) {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			ready = err == nil && n > 0
		})
		return ready
	}
	l.SetDeadline(time.Now())
	if queued() {
		t.Error("readable without a connection")
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

// TestNoDescriptorLeft checks that Accept returns an error at the limit of
// descriptors, as in package net, and that the connection stays queued.
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

// TestAwaitListener checks a Listener that gets its own socket later, as that
// of a standby does.
func TestAwaitListener(t *testing.T) {
	g := newGroup(t, 2)
	g.steer(0)
	l, err := AwaitListener(g.dup(1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Addr().String() != g.addr {
		t.Errorf("Addr %v, want %s", l.Addr(), g.addr)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Accept before Own does not panic")
			}
		}()
		l.Accept()
	}()
	l.SetDeadline(time.Now())
	if err := l.Own(g.dup(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept after a deadline from before Own: %v", err)
	}
	l.SetDeadline(time.Now().Add(limit))
	g.connect(1)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := l.Own(g.dup(0)); !errors.Is(err, unix.EEXIST) {
		t.Errorf("second Own: %v", err)
	}
	l.Close()
	if err := l.Own(g.dup(0)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Own after Close: %v", err)
	}
}
