//go:build unix

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("pool", poolProgram) }

// poolProgram runs a pool with a control socket at the path of its argument. Files
// beside the socket make it misbehave:
//
//	bad    Reload fails
//	crash  workers crash
//	hook   BeforeSpawn blocks until the file is gone
func poolProgram() {
	socket := os.Args[1]
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(socket), name))
		return err == nil
	}
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 2, Logger: slog.New(slog.DiscardHandler), CrashLoop: prefork.CrashLoop{Failures: -1},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, syscall.SIGHUP: {Signal: syscall.SIGTERM, Rolling: true},
		},
		Reload: func() ([]byte, error) {
			if exists("bad") {
				return nil, errors.New("the configuration is bad")
			}
			return nil, nil
		},
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
			for exists("hook") {
				time.Sleep(5 * time.Millisecond)
			}
		},
	})
	if err != nil {
		testprog.Print("new: %v", err)
		return
	}
	detach, err := control.Attach(control.Config{Path: socket}, pm)
	if err != nil {
		testprog.Print("attach: %v", err)
		return
	}
	defer detach()
	err = pm.Run(context.Background(), func(w *prefork.Worker) error {
		if exists("crash") {
			return errors.New("crash")
		}
		<-w.Context().Done()
		return nil
	})
	testprog.Print("returned: %v", err)
}

// The command against a program: done, failed and pending, by status and words.
func TestRealProgram(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	beside := func(name string) string { return filepath.Join(filepath.Dir(socket), name) }
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(beside(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, name := range []string{"bad", "crash", "hook"} {
			os.Remove(beside(name))
		}
	})
	check := func(want int, words string, args ...string) {
		t.Helper()
		status, stdout, stderr := command(append([]string{"-s", socket}, args...)...)
		if status != want || !strings.Contains(stdout+stderr, words) {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %d and %q", args, status, stdout, stderr, want, words)
		}
	}
	join := inBackground("-s", socket, "wait", "settled") // before the program
	p := preforktest.Start(t, "pool", socket)
	if status, stdout, stderr := join(); status != 0 {
		t.Fatalf("wait: status %d, %q, %q", status, stdout, stderr)
	}
	check(0, "settled", "status", "--check")
	check(0, "answers in", "ping")
	check(0, "generation 2 is in place: 2 workers replaced in", "reload")
	touch("bad")
	check(1, "the configuration is bad", "reload")
	os.Remove(beside("bad"))
	touch("crash")
	check(1, "generation 3 failed, keeping generation 2: worker ", "reload", "--how", "rolling")
	os.Remove(beside("crash"))
	check(0, "last reload failed", "status")
	check(0, "3 workers", "scale", "+1")
	check(1, "there is no worker 1", "kill", "1")
	check(2, "USR1", "signal", "USR1")
	check(2, "no service", "stop", "--stay")
	check(0, "generation 3 failed", "events")
	touch("hook")
	check(6, "in the hook BeforeSpawn since", "--timeout", "100ms", "restart")
	check(0, "in the hook BeforeSpawn since", "status")
	check(0, "web", "ls")
	os.Remove(beside("hook"))
	check(0, "settled", "wait", "settled")
	gone := inBackground("-s", socket, "wait", "gone")
	stopped := inBackground("-s", socket, "wait", "stopped")
	check(0, "stopped", "stop")
	p.Expect("returned: <nil>")
	for _, join := range []func() (int, string, string){gone, stopped} {
		if status, stdout, stderr := join(); status != 0 {
			t.Errorf("status %d, %q, %q", status, stdout, stderr)
		}
	}
	check(3, "there is no socket", "status")
	p.Wait()
}
