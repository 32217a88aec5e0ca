//go:build unix

package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// Listen on a file that exists, and the file after it.
func TestExistingFile(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		err     string // part of the error; "" for none
		kept    bool   // the file is that of before
	}{
		{"no file", func(*testing.T, string) {}, "", false},
		{"stale", leaveStale, "", false},
		{"live", func(t *testing.T, path string) { listen(t, net.Listen, "unix", path) }, "another program serves on", true},
		{"not a socket", func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "is not a socket", true},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is not a socket", true},
		{"a dangling link", func(t *testing.T, path string) {
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
		}, "is not a socket", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := absent(t)
			test.prepare(t, path)
			before, _ := os.Lstat(path)
			ln, err := newSet(t, Config{}).Listen("unix", path)
			after, _ := os.Lstat(path)
			if test.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				conn, err := net.Dial("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if same := before != nil && os.SameFile(before, after); same != test.kept {
				t.Errorf("the file of before is there: %t", same)
			}
		})
	}
}

// The second of two equal calls is an error, and leaves the first alone.
func TestListenTwice(t *testing.T) {
	set, path := newSet(t, Config{}), absent(t)
	listen(t, set.Listen, "unix", path)
	if _, err := set.Listen("unix", path); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "this Manager") {
		t.Errorf("error %v", err)
	}
	if !exists(path) {
		t.Error("the file is gone")
	}
}

// stale returns the place of a file that a dead process has left.
func stale(t *testing.T, path string) *place {
	t.Helper()
	at, err := hold(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(at.close)
	return at
}

// A file that is replaced while it is checked is left alone: a program may serve
// on the new one.
func TestSwappedFile(t *testing.T) {
	for _, test := range []struct {
		name string
		swap func(t *testing.T, path string)
		err  string
		kept bool
	}{
		{"not swapped", func(*testing.T, string) {}, "", false},
		{"by a live one", func(t *testing.T, path string) {
			listen(t, net.Listen, "unix", path+"2")
			if err := os.Rename(path+"2", path); err != nil {
				t.Fatal(err)
			}
		}, "was replaced while it was being checked", true},
		{"removed", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, "was replaced while it was being checked", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := absent(t)
			leaveStale(t, path)
			err := stale(t, path).removeStale("unix", path, func(network, address string, timeout time.Duration) (net.Conn, error) {
				conn, err := net.DialTimeout(network, address, timeout)
				test.swap(t, path)
				return conn, err
			})
			if test.err == "" && err != nil || test.err != "" && (!errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if exists(path) != test.kept {
				t.Errorf("the file exists: %t", exists(path))
			}
		})
	}
}

// If it is not certain that no process answers, the file is left alone.
func TestUncertainFile(t *testing.T) {
	path := absent(t)
	leaveStale(t, path)
	err := stale(t, path).removeStale("unix", path, func(string, string, time.Duration) (net.Conn, error) { return nil, syscall.EAGAIN })
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "may serve") || !exists(path) {
		t.Errorf("error %v, the file exists: %t", err, exists(path))
	}
}

// Any process can lock the directory. An existing file is then left alone.
func TestLockedDirectory(t *testing.T) {
	set, path := newSet(t, Config{}), absent(t)
	leaveStale(t, path)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Listen("unix", path); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "cannot be checked safely") {
		t.Errorf("error %v", err)
	}
	if !exists(path) {
		t.Error("the file is gone")
	}
	listen(t, set.Listen, "unix", path+"2")
}

// RemoveFiles removes each file once, unless another file has taken its name or
// it belongs to a successor.
func TestRemoveFiles(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(t *testing.T, set *Set, path string)
		kept   bool
	}{
		{"own", func(*testing.T, *Set, string) {}, false},
		{"replaced", func(t *testing.T, _ *Set, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			listen(t, net.Listen, "unix", path)
		}, true},
		{"gone", func(t *testing.T, _ *Set, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"released", func(_ *testing.T, set *Set, _ string) { set.ReleaseFiles() }, true},
		{"removed and made again", func(t *testing.T, set *Set, path string) {
			set.RemoveFiles()
			listen(t, net.Listen, "unix", path)
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, path := newSet(t, Config{}), absent(t)
			listen(t, set.Listen, "unix", path)
			test.before(t, set, path)
			set.RemoveFiles()
			if exists(path) != test.kept {
				t.Errorf("the file exists: %t", exists(path))
			}
		})
	}
}

// A program may change its directory after Listen.
func TestRemoveFilesByRelativePath(t *testing.T) {
	dir := socketDir(t)
	t.Chdir(dir)
	set := newSet(t, Config{})
	listen(t, set.Listen, "unix", "sock")
	t.Chdir("/")
	set.RemoveFiles()
	if exists(filepath.Join(dir, "sock")) {
		t.Error("the file is left")
	}
}

// A program that closes its listener removes no file, and takes no socket from
// the workers.
func TestCloseListener(t *testing.T) {
	set, path := newSet(t, Config{}), absent(t)
	ln, err := set.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if !exists(path) {
		t.Error("the file is gone")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the socket is gone: %v", err)
	}
	conn.Close()
}

// A successor first gets the sockets of its predecessor. After the takeover it owns
// their files, and closes those that its program has not asked for.
func TestTakeOver(t *testing.T) {
	dir := socketDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	used, unused, foreign, relative := bequest(t, "unix", path("used")), bequest(t, "unix", path("unused")), bequest(t, "unix", path("foreign")), bequest(t, "unix", path("relative"))
	used.Own, unused.Own, relative.Own = true, true, true
	relative.Address = "relative"
	copied, err := fd.Duplicate(uintptr(used.FD))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close(copied)
	set := newSet(t, Config{Successor: true, Passive: true, Dir: dir, Inherited: NewInherited([]marker.Socket{used, unused, foreign, relative}, nil)})
	listen(t, set.Listen, "unix", path("used"))
	listen(t, set.Listen, "unix", path("new"))
	if !isSame(set.HandAll()[0].FD, copied) {
		t.Error("the inherited socket was not taken")
	}
	for _, s := range set.HandAll() {
		if !s.Own {
			t.Errorf("%s is not handed on as a file of this program", s.Address)
		}
	}
	set.RemoveFiles()
	if exists(path("new")) || !exists(path("used")) {
		t.Error("before the takeover only new files are this manager's")
	}
	if !set.Passive() {
		t.Error("two managers steer")
	}
	set.TakeOver()
	if set.Passive() {
		t.Error("no manager steers")
	}
	for name, want := range map[string]bool{"used": true, "unused": false, "relative": false, "foreign": true} {
		if exists(path(name)) != want {
			t.Errorf("after the takeover %s exists: %t", name, !want)
		}
	}
	for _, s := range []marker.Socket{unused, foreign, relative} {
		if isOpen(s.FD) {
			t.Errorf("the socket %s, which the program has not asked for, is open", s.Address)
		}
	}
	set.RemoveFiles()
	if exists(path("used")) {
		t.Error("an inherited file is left at the end")
	}
}

// Only the Manager that takes over waits for its predecessor. Others of the same
// program steer from the beginning.
func TestSecondManagerOfASuccessorSteers(t *testing.T) {
	if newSet(t, Config{Successor: true}).Passive() {
		t.Error("a Manager without a predecessor waits for a takeover")
	}
}

// A path that is too long is an error with both lengths, for streams and
// datagrams, and nothing is left behind. The longest path works.
func TestLongPath(t *testing.T) {
	dir := socketDir(t)
	most := len(syscall.RawSockaddrUnix{}.Path) - 1
	longest := dir + "/" + strings.Repeat("x", most-len(dir)-1)
	set := newSet(t, Config{})
	listen(t, set.Listen, "unix", longest)
	set.RemoveFiles()
	want := fmt.Sprintf("the path has %d bytes, and a unix socket may have %d", most+1, most)
	for name, call := range map[string]func() error{
		"Listen":          func() error { _, err := set.Listen("unix", longest+"x"); return err },
		"ListenPerWorker": func() error { _, err := set.ListenPerWorker("unix", longest+"x"); return err },
		"ListenPacket":    func() error { _, err := set.ListenPacket("unixgram", longest+"x"); return err },
	} {
		if err := call(); !errors.Is(err, syscall.ENAMETOOLONG) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if files, err := os.ReadDir(dir); len(files) > 0 || err != nil {
		t.Errorf("files are left: %v, %v", files, err)
	}
	if runtime.GOOS == "linux" {
		abstract := "@" + strings.Repeat("x", most-4) + strconv.Itoa(os.Getpid()%1000)
		listen(t, set.Listen, "unix", abstract)
		if _, err := set.Listen("unix", abstract+strings.Repeat("x", 10)); !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Errorf("a long abstract address: %v", err)
		}
	}
}
