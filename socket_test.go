//go:build unix

package prefork

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

	"github.com/prefork-go/prefork/preforktest"
	"golang.org/x/sys/unix"
)

// A manager never removes the socket file of another that took its place.
func TestListenRemovesOnlyItsOwnFile(t *testing.T) {
	path := filepath.Join(preforktest.TempDir(t), "s")
	r := newRig(t, Config{}, nil, nil)
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
	r.removeSocketFiles()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other's file: %v", err)
	}
}

// The path of a unix socket may be relative, and the program change its directory.
func TestListenByRelativePath(t *testing.T) {
	dir := preforktest.TempDir(t)
	t.Chdir(dir)
	r := newRig(t, Config{}, nil, nil)
	ln, err := r.Listen("unix", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Chdir("/")
	r.removeSocketFiles()
	if _, err := os.Lstat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Errorf("the file of the socket is left: %v", err)
	}
}

// Managers that find one stale socket file at one moment: one has it in the end, and nobody else believes so.
func TestStaleFileFoundByMany(t *testing.T) {
	dir := preforktest.TempDir(t)
	var rigs []*rig
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			rigs = append(rigs, newRig(t, Config{}, nil, nil))
		})
	}
	for _, network := range []string{"unix", "unixgram"} {
		for round := range 50 {
			path := filepath.Join(dir, fmt.Sprint(network, round))
			leaveStale(t, network, path)
			var wg sync.WaitGroup
			var believe atomic.Int32
			var closers [4]interface{ Close() error }
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
			for _, c := range closers {
				if c != nil {
					c.Close()
				}
			}
			for _, r := range rigs {
				r.removeSocketFiles()
				for _, s := range r.sockets {
					syscall.Close(s.fd)
				}
				r.sockets = nil
			}
		}
	}
}

// leaveStale makes what a manager that was killed leaves behind.
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

// What start_server hands on blocks, and so do the sockets of a Command: Starlet would spin on one that does not.
func TestSocketsOfACommandBlock(t *testing.T) {
	for _, command := range [][]string{nil, {"true"}} {
		t.Run(fmt.Sprint(command), func(t *testing.T) {
			r := newRig(t, Config{Command: command}, nil, nil)
			ln, err := r.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			flags, err := unix.FcntlInt(uintptr(r.sockets[0].fd), unix.F_GETFL, 0)
			if blocks := flags&unix.O_NONBLOCK == 0; err != nil || blocks != (command != nil) {
				t.Errorf("blocks: %t, %v", blocks, err)
			}
		})
	}
}

// A socket that a Command could not be told of is refused when it is asked for, and its file not left behind.
func TestSocketWithoutNameForACommand(t *testing.T) {
	r := newRig(t, Config{Command: []string{"true"}}, nil, nil)
	path := filepath.Join(preforktest.TempDir(t), "a=b")
	if _, err := r.Listen("unix", path); err == nil || !strings.Contains(err.Error(), "cannot be named in SERVER_STARTER_PORT") {
		t.Errorf("Listen = %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
}

// Anybody who can open a directory can lock it, for as long as he likes. Listen waits a moment, and then does what needs no lock.
func TestListenInALockedDirectory(t *testing.T) {
	dir := preforktest.TempDir(t)
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Config{}, nil, nil)
	t.Cleanup(r.removeSocketFiles)
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
