package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("claimer", claimer) }

// claimer listens on the socket that it is given, and exits at the end of its input.
func claimer() {
	if err := unix.Listen(3, 100); err != nil {
		testprog.Print("listen: %v", err)
	}
	testprog.Print("open")
	os.Stdin.Read(make([]byte, 1))
}

// orphanedSocket returns a listening socket whose process, the kernel reports, is
// one that has exited. The test alone has the socket.
func orphanedSocket(t *testing.T) (socket string, ln *net.UnixListener) {
	t.Helper()
	socket = filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := preforktest.New(t, "claimer")
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd.ExtraFiles = []*os.File{file}
	p.Start()
	p.Expect("open")
	in.Close()
	p.Wait()
	return socket, ln
}

// The process that the kernel reports for a socket has exited, and another one has
// the socket: its manager has not stopped.
func TestZapOrphanedSocket(t *testing.T) {
	socket, _ := orphanedSocket(t)
	status, stdout, stderr := command("-s", socket, "--timeout", "1s", "zap", "--term", "1ms", "--kill", "1ms")
	if status != exitFailed || stdout != "" || !strings.Contains(stderr, "another process has its socket") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// wait does not ask again and again while a socket outlives the process that the
// kernel reports.
func TestWaitGoneOrphanedSocket(t *testing.T) {
	socket, ln := orphanedSocket(t)
	began := time.Now()
	status, _, stderr := command("-s", socket, "--timeout", "300ms", "wait", "gone")
	if status != exitPending || !strings.Contains(stderr, "not gone within 300ms") {
		t.Errorf("status %d, %q", status, stderr)
	}
	most := 2 * (2 + int(time.Since(began)/abstractInterval)) // two connections a look
	ln.SetDeadline(time.Now())
	n := 0
	for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
		conn.Close()
		n++
	}
	if n > most {
		t.Errorf("%d connections, want at most %d", n, most)
	}
	ln.SetDeadline(time.Time{})
	join := inBackground("-s", socket, "wait", "gone")
	if conn, err := ln.Accept(); err == nil {
		conn.Close()
	}
	ln.Close()
	if status, stdout, stderr := join(); status != 0 {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// zap does not end the process behind a socket that another user can replace.
func TestZapReplaceableSocket(t *testing.T) {
	shorten(t)
	for _, test := range []struct {
		mode  os.FileMode // of the directory
		words string      // "" if zap does it
	}{
		{0o777, "every user can replace"},
		{0o770, "group "},
		{0o777 | os.ModeSticky, ""},
		{0o755, ""},
	} {
		p, socket := startFakeProcess(t)
		if err := os.Chmod(filepath.Dir(socket), test.mode); err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr := command("-s", socket, "zap", "--term", "1ms")
		if (status == 0) != (test.words == "") || !strings.Contains(stderr, test.words) || status != 0 && status != exitForbidden {
			t.Errorf("%v: status %d, %q, %q", test.mode, status, stdout, stderr)
		}
		if test.words != "" {
			if status, _, _ := command("-s", socket, "ls"); status != 0 || p.PID() == 0 {
				t.Errorf("%v: ls: status %d", test.mode, status)
			}
		}
	}
}

// Other users' directories on the way to the socket count, and the directory of the
// manager's user is no one else's.
func TestReplaceable(t *testing.T) {
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "needs root, to make directories of others")
	}
	const other, third = 64123, 64124
	for _, test := range []struct {
		name  string
		make  func(dir string)
		words string
	}{
		{"of root", func(string) {}, ""},
		{"of the manager's user", func(dir string) { os.Chown(dir+"/a/b", other, other) }, ""},
		{"of a third user", func(dir string) { os.Chown(dir+"/a/b", third, third) }, fmt.Sprintf("user %d can replace", third)},
		{"below a third user's", func(dir string) { os.Chown(dir+"/a", third, third) }, fmt.Sprintf("user %d can replace", third)},
		{"below one that is open to all", func(dir string) { os.Chmod(dir+"/a", 0o777) }, "every user can replace"},
		{"a third user's file in /tmp", func(dir string) {
			os.Chmod(dir+"/a/b", 0o777|os.ModeSticky)
			os.Chown(dir+"/a/b/s", third, third)
		}, fmt.Sprintf("user %d can replace", third)},
	} {
		dir := testprog.SocketDir(t)
		if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(dir+"/a/b/s", nil, 0o600)
		os.Symlink("a/b", dir+"/link")
		test.make(dir)
		for _, path := range []string{dir + "/a/b/s", dir + "/link/s"} {
			err := replaceable(path, other)
			if (err == nil) != (test.words == "") || err != nil && !strings.Contains(err.Error(), test.words) {
				t.Errorf("%s: %s: %v", test.name, path, err)
			}
		}
		os.RemoveAll(dir + "/a")
		os.Remove(dir + "/link")
	}
}

// Each link on the way counts with the directory that it is in, and so does one in
// the place of the socket: who can switch it chooses the process.
func TestReplaceableLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "needs root, to make directories of others")
	}
	const other, third = 64123, 64124
	thirds := fmt.Sprintf("user %d can replace", third)
	for _, test := range []struct {
		name string
		make func(dir string) // links "first" and "second", the way to the socket is first/s
		path string
		want string
	}{
		{"a chain of root's", func(dir string) {
			os.Symlink("../second", dir+"/b/link")
			os.Symlink("b/link", dir+"/first")
		}, "first/s", ""},
		{"a chain by a third user's directory", func(dir string) {
			os.Symlink("../second", dir+"/b/link")
			os.Symlink("b/link", dir+"/first")
			os.Chown(dir+"/b", third, third)
		}, "first/s", thirds},
		{"a chain by the manager's user", func(dir string) {
			os.Symlink("../second", dir+"/b/link")
			os.Symlink("b/link", dir+"/first")
			os.Chown(dir+"/b", other, other)
		}, "first/s", ""},
		{"a link by a third user's directory and back", func(dir string) {
			os.Symlink("b/../second", dir+"/first")
			os.Chown(dir+"/b", third, third)
		}, "first/s", ""},
		{"a third user's link, and back by its target", func(dir string) {
			os.Symlink("../second", dir+"/b/link")
			os.Chown(dir+"/b", third, third)
		}, "b/link/../second/s", thirds},
		{"an absolute link of root's", func(dir string) { os.Symlink(dir+"/second", dir+"/first") }, "first/s", ""},
		{"a link to the socket", func(dir string) { os.Symlink("../second/s", dir+"/b/s") }, "b/s", ""},
		{"a third user's link to the socket", func(dir string) {
			os.Symlink("../second/s", dir+"/b/s")
			os.Chown(dir+"/b", third, third)
		}, "b/s", thirds},
		{"a link to a third user's link to the socket", func(dir string) {
			os.Symlink("../second/s", dir+"/b/s")
			os.Symlink("b/s", dir+"/first")
			os.Chown(dir+"/b", third, third)
		}, "first", thirds},
		{"a third user's link in /tmp", func(dir string) {
			os.Chmod(dir+"/b", 0o777|os.ModeSticky)
			os.Symlink("../second", dir+"/b/link")
			os.Lchown(dir+"/b/link", third, third)
			os.Symlink("b/link", dir+"/first")
		}, "first/s", thirds},
		{"a loop", func(dir string) { os.Symlink("first", dir+"/first") }, "first/s", "too many links"},
	} {
		dir := t.TempDir()
		for _, name := range []string{"/b", "/second"} {
			if err := os.Mkdir(dir+name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		os.WriteFile(dir+"/second/s", nil, 0o600)
		test.make(dir)
		err := replaceable(dir+"/"+test.path, other)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// Without SO_PEERPIDFD (Linux before 6.5) the process must have the socket.
func TestOpenPeerOfOldKernel(t *testing.T) {
	old := peerPIDFD
	peerPIDFD = func(int) (int, error) { return -1, unix.ENOPROTOOPT }
	defer func() { peerPIDFD = old }()
	shorten(t)
	p, socket := startFakeProcess(t)
	proc, err := openPeer(socket)
	if err != nil || proc.pid != p.PID() {
		t.Fatalf("%+v, %v", proc, err)
	}
	proc.close()
	preforktest.Freeze(t, p.PID())
	if status, _, stderr := command("-s", socket, "zap", "--term", "0", "--kill", "10ms"); status != 0 {
		t.Errorf("status %d, %q", status, stderr)
	}
	if _, err := openHolder(&process{pid: os.Getpid()}, socket); err == nil || !strings.Contains(err.Error(), "used again") {
		t.Errorf("a process without the socket: %v", err)
	}
	orphan, _ := orphanedSocket(t)
	if _, err := openPeer(orphan); err != os.ErrProcessDone {
		t.Errorf("a process that has exited: %v", err)
	}
}

// The pid that the kernel reports may be that of another process by then.
func TestZapReusedPID(t *testing.T) {
	other, _ := startFakeProcess(t)
	f := startFake(t) // served by this process, which must not get a signal
	f.on("POST /v1/stop", refusal(503, "superseded for ever"))
	old := peerPIDFD
	peerPIDFD = func(int) (int, error) { return unix.PidfdOpen(other.PID(), 0) }
	defer func() { peerPIDFD = old }()
	if status, stdout, stderr := command("-s", f.socket, "zap", "--term", "1ms"); status != 0 {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	if s := other.Wait().String(); !strings.Contains(s, "terminated") {
		t.Errorf("ended by %v", s)
	}
}
