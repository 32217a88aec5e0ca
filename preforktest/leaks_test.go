package preforktest

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"
)

func TestNoLeaks(t *testing.T) {
	NoLeaks(t)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGHUP) // its goroutine never exits
	signal.Stop(stop)
	Start(t, "pool").Expect("^ready$")
	end := make(chan struct{})
	go func() { <-end }()
	close(end) // only NoLeaks waits until the goroutine has exited
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
	ft.wantErrors(t, "leaked goroutine:\ngoroutine ")
	close(end)

	ft = &fakeT{}
	var file *os.File
	ft.run(func() {
		noLeaks(ft, limit)
		file, _ = os.Open(os.DevNull)
	})
	ft.wantErrors(t, "leaked descriptor: ")
	file.Close()

	ft = &fakeT{}
	cmd := exec.Command("true")
	ft.run(func() {
		noLeaks(ft, limit)
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
	})
	ft.wantErrors(t, "leaked descriptor: ", "leftover child process: ") // its pidfd, and itself
	cmd.Wait()
}

// A number that was in use before may refer to another file now.
func TestReplacedDescriptor(t *testing.T) {
	before := snapshot{descriptors: map[int]string{3: "/file", 4: "pipe:[1]"}}
	now := snapshot{descriptors: map[int]string{3: "/file (deleted)", 4: "pipe:[2]"}}
	if leaks := before.leaks(now); len(leaks) != 1 || leaks[0] != "leaked descriptor: 4 pipe:[2]" {
		t.Errorf("%q", leaks)
	}
}

// NoLeaks reports a descriptor that the garbage collector would close, although
// it makes garbage itself.
func TestForgottenDescriptor(t *testing.T) {
	linuxOnly(t)
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	path := filepath.Join(t.TempDir(), "forgotten")
	ft := &fakeT{}
	ft.run(func() {
		noLeaks(ft, 100*time.Millisecond)
		ft.Cleanup(func() {
			os.Create(path)
			debug.SetGCPercent(1)
		})
	})
	ft.wantErrors(t, "leaked descriptor: ")
	WaitFor(t, "the descriptor is closed", func() bool {
		runtime.GC()
		open, err := Descriptors(os.Getpid())
		for _, name := range open {
			if filepath.Base(name) == "forgotten" {
				return false
			}
		}
		return err == nil
	})
}
