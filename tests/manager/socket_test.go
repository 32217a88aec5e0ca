//go:build unix

package manager_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"golang.org/x/sys/unix"
)

// A manager never removes the socket file of another process that replaced its
// own.
func TestListenRemovesOnlyItsOwnFile(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	r := newRig(t, prefork.Config{}, nil, nil)
	ln, err := r.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ln.Close()
	r.shutDown()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other's file: %v", err)
	}
}

// The path of a unix socket may be relative. The program may change its
// directory afterwards.
func TestListenByRelativePath(t *testing.T) {
	dir := testprog.SocketDir(t)
	t.Chdir(dir)
	r := newRig(t, prefork.Config{}, nil, nil)
	ln, err := r.Listen("unix", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Chdir("/")
	r.shutDown()
	if _, err := os.Lstat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Errorf("the file of the socket is left: %v", err)
	}
}

// Several Managers find one stale socket file at the same moment. Exactly one
// of them listens in the end.
func TestStaleFileRace(t *testing.T) {
	dir := testprog.SocketDir(t)
	for _, network := range []string{"unix", "unixgram"} {
		for round := range 50 {
			path := filepath.Join(dir, fmt.Sprint(network, round))
			leaveStale(t, network, path)
			t.Run(fmt.Sprint(network, round), func(t *testing.T) { findStale(t, network, path) })
		}
	}
}

func findStale(t *testing.T, network, path string) {
	var rigs [4]*rig
	for i := range rigs {
		rigs[i] = newRig(t, prefork.Config{}, nil, nil)
	}
	var wg sync.WaitGroup
	var believe atomic.Int32
	var closers [len(rigs)]interface{ Close() error }
	for i, r := range rigs {
		wg.Go(func() {
			var err error
			if network == "unix" {
				closers[i], err = r.Listen(network, path)
			} else {
				closers[i], err = r.ListenPacket(network, path)
			}
			if err == nil {
				believe.Add(1)
			} else if closers[i] = nil; !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v, want EADDRINUSE", err)
			}
		})
	}
	wg.Wait()
	conn, err := net.Dial(network, path)
	if err != nil || believe.Load() != 1 {
		t.Errorf("%s: %d Managers believe that they listen; dialling gives %v", path, believe.Load(), err)
	} else {
		conn.Close()
	}
	for i, r := range rigs {
		if closers[i] != nil {
			closers[i].Close()
		}
		r.shutDown()
	}
}

// leaveStale leaves a socket file behind, as a killed manager does.
func leaveStale(t *testing.T, network, path string) {
	t.Helper()
	var c interface{ Close() error }
	var err error
	if network == "unix" {
		var ln *net.UnixListener
		if ln, err = net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network}); err == nil {
			ln.SetUnlinkOnClose(false)
			c = ln
		}
	} else {
		c, err = net.ListenUnixgram(network, &net.UnixAddr{Name: path, Net: network})
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("nothing was left behind: %v", err)
	}
}

// Sockets from start_server block, and so do those of a Command: Starlet would
// spin on a non-blocking one.
func TestSocketsOfACommandBlock(t *testing.T) {
	for _, command := range [][]string{nil, {"true"}} {
		t.Run(fmt.Sprint(command), func(t *testing.T) {
			r := newRig(t, prefork.Config{Command: command}, nil, nil)
			ln, err := r.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			if blocks := !isNonblocking(t, ln); blocks != (command != nil) {
				t.Errorf("blocks: %t", blocks)
			}
		})
	}
}

// Listen refuses a socket that no variable can name to a Command, and leaves no
// file behind.
func TestSocketWithoutNameForACommand(t *testing.T) {
	r := newRig(t, prefork.Config{Command: []string{"true"}}, nil, nil)
	path := filepath.Join(testprog.SocketDir(t), "a=b")
	if ln, err := r.Listen("unix", path); ln != nil || err == nil || !strings.Contains(err.Error(), "cannot be named in SERVER_STARTER_PORT") {
		t.Errorf("Listen = %v, %v", ln, err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
}

// Any user who can open a directory can lock it for as long as they like.
// Listen waits for the lock for a moment; after that it does the steps that need no
// lock.
func TestListenInALockedDirectory(t *testing.T) {
	dir := testprog.SocketDir(t)
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, prefork.Config{}, nil, nil)
	t.Cleanup(r.shutDown)
	listen := func(name string) error {
		t.Helper()
		result := make(chan error, 1)
		go func() {
			ln, err := r.Listen("unix", filepath.Join(dir, name))
			if err == nil {
				ln.Close()
			}
			result <- err
		}()
		select {
		case err := <-result:
			return err
		case <-time.After(20 * time.Second):
			lock.Close()
			<-result
			t.Fatal("Listen waits for the lock")
			return nil
		}
	}
	if err := listen("new"); err != nil {
		t.Errorf("a new file: %v", err)
	}
	stale := filepath.Join(dir, "stale")
	leaveStale(t, "unix", stale)
	before, err := os.Lstat(stale)
	if err != nil {
		t.Fatal(err)
	}
	err = listen("stale")
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "the directory "+dir) || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("a stale file: %v", err)
	}
	if now, err := os.Lstat(stale); err != nil || !os.SameFile(now, before) {
		t.Errorf("the stale file: %v", err)
	}
	lock.Close()
	if err := listen("stale"); err != nil {
		t.Errorf("a stale file when the lock is gone: %v", err)
	}
}
