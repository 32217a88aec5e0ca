//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() {
	preforktest.Register("tasks", main)
	preforktest.Register("leaveChild", leaveChild)
}

func start(t *testing.T, args ...string) (p *preforktest.Program, dir string) {
	t.Helper()
	dir = t.TempDir()
	return preforktest.Start(t, "tasks", append([]string{"-dir", dir}, args...)...), dir
}

// waitExit waits for the exit and returns the lines with the prefix.
func waitExit(t *testing.T, p *preforktest.Program, prefix string) (lines []string) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	p.WaitGone()
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return lines
}

// Each of ten tasks is assigned and collected once, as a success or a failure.
// B11: a task that was killed by a signal is a failure.
func TestB11DeathIsFailure(t *testing.T) {
	p, dir := start(t, "-pace", "1ms")
	p.Expect(`^all done, 0 pending$`)
	assigned := waitExit(t, p, "assigned ")
	successes, failures := waitExit(t, p, "success "), waitExit(t, p, "failure ")
	slices.Sort(failures)
	if len(assigned) != 10 || len(successes) != 7 || !slices.Contains(successes, "success task-9: 81") {
		t.Errorf("%q %q", assigned, successes)
	}
	want := []string{
		"failure task-3: cannot square three",
		"failure task-5: worker terminated with SIGKILL",
		"failure task-7: worker terminated with exit code 3",
	}
	if !slices.Equal(failures, want) {
		t.Errorf("%q, want %q", failures, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "tasks.pid")); err == nil {
		t.Error("the pid file was not removed")
	}
}

// leaveChild is a pool whose only task starts a program that keeps running, and
// is then killed.
func leaveChild() {
	p := &pool{
		task: func(json.RawMessage) (any, error) {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				return nil, err
			}
			fmt.Println("child", cmd.Process.Pid)
			return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		},
		assign:  func(string) {},
		success: func(id string, _ json.RawMessage) { fmt.Println("success", id) },
		failure: func(id string, err error) { fmt.Printf("failure %s: %v\n", id, err) },
	}
	logger := slog.New(slog.DiscardHandler)
	if err := p.newManager(prefork.Config{MaxWorkers: 1, Logger: logger}); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.run(ctx, func() {
		defer cancel()
		p.process("a", 1)
		p.sync()
	})
}

// The exit of a task is detected even if a process that it has started keeps
// running.
func TestTaskLeavesChild(t *testing.T) {
	p := preforktest.Start(t, "leaveChild")
	pid, err := strconv.Atoi(p.Expect(`^child (\d+)$`)[1])
	if err != nil {
		t.Fatal(err)
	}
	p.Expect(`^failure a: worker terminated with SIGKILL$`)
	p.Wait()
	syscall.Kill(pid, syscall.SIGKILL)
	preforktest.WaitFor(t, "the child is gone", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	p.WaitGone()
}

// The pool runs no more tasks at a time than its capacity.
func TestCapacity(t *testing.T) {
	p, _ := start(t, "-pace", "20ms", "-capacity", "3", "-n", "3")
	p.Expect(`^all done, 0 pending$`)
	if lines := waitExit(t, p, "success "); len(lines) != 3 {
		t.Errorf("%q", lines)
	}
	p, _ = start(t, "-pace", "1ms", "-capacity", "1", "-n", "3")
	running := 0
	for range 6 {
		switch line := p.Expect(`^(assigned|success) `)[1]; line {
		case "assigned":
			running++
		default:
			running--
		}
		if running > 1 {
			t.Error("two tasks at a time, want one")
		}
	}
	waitExit(t, p, "")
}

// A file stops the pool, which finishes the tasks that have begun.
func TestStop(t *testing.T) {
	p, dir := start(t, "-pace", "50ms", "-n", "1000")
	p.ExpectN(2, `^assigned `)
	if err := os.WriteFile(filepath.Join(dir, "tasks.stopped"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	assigned := waitExit(t, p, "assigned ")
	collected := len(waitExit(t, p, "success ")) + len(waitExit(t, p, "failure "))
	if len(assigned) != collected {
		t.Errorf("%d assigned, %d collected", len(assigned), collected)
	}
	next := preforktest.Start(t, "tasks", "-dir", dir)
	next.Expect(`stopped flag is set: remove \S+$`)
	next.Wait()
}

// During a pause the pool begins no task, and it loses none.
func TestPause(t *testing.T) {
	dir := t.TempDir()
	paused := filepath.Join(dir, "tasks.paused")
	os.WriteFile(paused, nil, 0o600)
	p := preforktest.Start(t, "tasks", "-dir", dir, "-pace", "1ms", "-n", "3")
	preforktest.WaitFor(t, "a pid file", func() bool {
		_, err := os.Stat(filepath.Join(dir, "tasks.pid"))
		return err == nil
	})
	time.Sleep(50 * time.Millisecond)
	if lines := p.Lines(); len(lines) > 0 {
		t.Errorf("output during the pause: %q", lines)
	}
	os.Remove(paused)
	p.Expect(`^all done, 0 pending$`)
	if lines := waitExit(t, p, "success "); len(lines) != 3 {
		t.Errorf("%q", lines)
	}
}
