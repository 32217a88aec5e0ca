//go:build unix

package monitor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// lock-fd keeps a second run from starting while a process of the first one lives.
func TestLockFD(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: test -e /proc/self/fd/7 && echo locked; (trap '' HUP; exec sleep 1000) >/dev/null 2>&1 & echo up $!; exit 1", "lock-fd: 7", "backoff: 0")
	r.start()
	r.want("locked")
	child, _ := strconv.Atoi(r.want(`up (\d+)`)[0])
	preforktest.WaitFor(t, "problem", func() bool { return strings.Contains(r.status("web").Problem, "service-lock") })
	r.quiet(50 * time.Millisecond)
	syscall.Kill(child, syscall.SIGKILL)
	preforktest.WaitFor(t, "end", func() bool { return isZombie(child) })
	r.do("web", "u")
	r.want("locked")
	child, _ = strconv.Atoi(r.want(`up (\d+)`)[0])
	syscall.Kill(child, syscall.SIGKILL)
}

// The file of lock-fd is one of supervise/ alone: a user who may control the service
// can lead it to no other file, and keeps no service waiting.
func TestLockFileIsStrange(t *testing.T) {
	r := newRig(t, Config{})
	secret := filepath.Join(r.dir, ".secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(path string) error{
		"link":  func(path string) error { return os.Symlink(secret, path) },
		"name":  func(path string) error { return os.Link(secret, path) },
		"fifo":  func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"dir":   func(path string) error { return os.Mkdir(path, 0o700) },
		"other": func(string) error { return nil },
	} {
		r.service(name, "run: cat <&7; echo up "+name+"; exec sleep 1000", "lock-fd: 7")
		path := filepath.Join(r.dir, name, "supervise", "service-lock")
		err := os.Mkdir(filepath.Dir(path), 0o700)
		if err == nil {
			err = place(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	r.want("up other")
	for _, name := range []string{"link", "name", "fifo", "dir"} {
		preforktest.WaitFor(t, "problem of "+name, func() bool { return strings.Contains(r.status(name).Problem, "service-lock") })
	}
	r.quiet(20 * time.Millisecond)
}

// A process that is being started, and has the descriptor until its exec, does not
// count as one of the last run.
func TestLockDuringAFork(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	if err := os.Mkdir(filepath.Join(r.dir, "web", "supervise"), 0o700); err != nil {
		t.Fatal(err)
	}
	u := newUnit(r.m, Service, "web")
	if err := u.takeLock(u.slots[0]); err != nil {
		t.Fatal(err)
	}
	other := newUnit(r.m, Service, "web")
	done := make(chan error)
	syscall.ForkLock.Lock()
	go func() { done <- other.takeLock(other.slots[0]) }()
	select {
	case err := <-done:
		t.Errorf("it does not wait for the end of the fork: %v", err)
		go func() { done <- nil }()
	case <-time.After(20 * time.Millisecond):
	}
	u.dropLock()
	syscall.ForkLock.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := u.takeLock(u.slots[0]); err == nil {
		t.Error("a lock that is held can be taken")
	}
	other.dropLock()
}
