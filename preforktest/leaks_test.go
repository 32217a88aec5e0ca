package preforktest

import (
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestNoLeaks(t *testing.T) {
	NoLeaks(t)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGHUP) // its goroutine stays
	signal.Stop(stop)
	Start(t, "pool").Expect("^ready$")
	end := make(chan struct{})
	go func() { <-end }()
	close(end) // nobody waits until the goroutine is gone but NoLeaks
}

func TestNoLeaksReports(t *testing.T) {
	linuxOnly(t)
	const limit = 10 * time.Millisecond
	ft := &fakeT{}
	end := make(chan struct{})
	ft.run(func() {
		noLeaks(ft, limit)
		go func() { <-end }()
	})
	ft.wantErrors(t, "goroutine left:\ngoroutine ")
	close(end)

	ft = &fakeT{}
	var file *os.File
	ft.run(func() {
		noLeaks(ft, limit)
		file, _ = os.Open(os.DevNull)
	})
	ft.wantErrors(t, "descriptor left: ")
	file.Close()

	ft = &fakeT{}
	cmd := exec.Command("true")
	ft.run(func() {
		noLeaks(ft, limit)
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
	})
	ft.wantErrors(t, "child process left: ", "descriptor left: ") // that is its pidfd
	cmd.Wait()
}

// A number that was in use before may mean something else now.
func TestReplacedDescriptor(t *testing.T) {
	before := snapshot{descriptors: map[int]string{3: "/file", 4: "pipe:[1]"}}
	now := snapshot{descriptors: map[int]string{3: "/file (deleted)", 4: "pipe:[2]"}}
	if leaks := before.leaks(now); len(leaks) != 1 || leaks[0] != "descriptor left: 4 pipe:[2]" {
		t.Errorf("%q", leaks)
	}
}

func TestTempDir(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() { TempDir(ft) })
	ft.wantErrors(t)

	ft = &fakeT{}
	var dir string
	ft.run(func() {
		dir = TempDir(ft)
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "sock"), Net: "unix"})
		if err != nil {
			t.Error(err)
			return
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
	})
	ft.wantErrors(t, filepath.Join(dir, "sock")+" (S")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("not removed: %v", err)
	}
}
