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

func TestMain(m *testing.M) {
	preforktest.Main(m, map[string]func(){"tasks": main, "leaving": leaving})
}

func start(t *testing.T, args ...string) (p *preforktest.Program, dir string) {
	t.Helper()
	dir = t.TempDir()
	return preforktest.Start(t, "tasks", append([]string{"-dir", dir}, args...)...), dir
}

// ended waits for the end and returns the lines that begin so.
func ended(t *testing.T, p *preforktest.Program, prefix string) (lines []string) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
	p.WaitGone()
	for _, line := range p.Lines() {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return lines
}

// Ten tasks: each is assigned, and collected once, as a result or as a failure. B11: one that a signal killed is a failure.
func TestB11DeathIsFailure(t *testing.T) {
	p, dir := start(t, "-pace", "1ms")
	p.Expect(`^all done, 0 pending$`)
	assigned := ended(t, p, "assigned ")
	successes, failures := ended(t, p, "success "), ended(t, p, "failure ")
	slices.Sort(failures)
	if len(assigned) != 10 || len(successes) != 7 || !slices.Contains(successes, "success task-9: 81") {
		t.Errorf("%q %q", assigned, successes)
	}
	want := []string{"failure task-3: three is not to be squared", "failure task-5: worker terminated with SIGKILL", "failure task-7: worker terminated with exit code 3"}
	if !slices.Equal(failures, want) {
		t.Errorf("%q, want %q", failures, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "tasks.pid")); err == nil {
		t.Error("the pid file is left")
	}
}

// leaving is a pool whose only task starts a program that lives on, and is killed.
func leaving() {
	p := &pool{
		task: func(json.RawMessage) (any, error) {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				return nil, err
			}
			fmt.Println("left", cmd.Process.Pid)
			return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		},
		assign:  func(string) {},
		success: func(id string, _ json.RawMessage) { fmt.Println("success", id) },
		failure: func(id string, why error) { fmt.Printf("failure %s: %v\n", id, why) },
	}
	if err := p.manager(prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		log.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	p.run(ctx, func() {
		defer end()
		p.process("a", 1)
		p.sync()
	})
}

// The end of a task is seen also where something that it has started lives on.
func TestTaskLeavesSomething(t *testing.T) {
	p := preforktest.Start(t, "leaving")
	pid, err := strconv.Atoi(p.Expect(`^left (\d+)$`)[1])
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	p.Expect(`^failure a: worker terminated with SIGKILL$`)
	p.Wait()
}

// No more run at a time than there is capacity for, each in another process.
func TestCapacity(t *testing.T) {
	p, _ := start(t, "-pace", "20ms", "-capacity", "3", "-n", "3")
	p.Expect(`^all done, 0 pending$`)
	if lines := ended(t, p, "success "); len(lines) != 3 {
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
			t.Error("two tasks at a time")
		}
	}
	ended(t, p, "")
}

// Stopped by a file, it finishes the tasks that have begun, and begins no other.
func TestStop(t *testing.T) {
	p, dir := start(t, "-pace", "50ms", "-n", "1000")
	p.ExpectN(2, `^assigned `)
	if err := os.WriteFile(filepath.Join(dir, "tasks.stopped"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	assigned := ended(t, p, "assigned ")
	collected := len(ended(t, p, "success ")) + len(ended(t, p, "failure "))
	if len(assigned) != collected {
		t.Errorf("%d assigned, %d collected", len(assigned), collected)
	}
	again := preforktest.Start(t, "tasks", "-dir", dir)
	again.Expect(`stopped flag is set: remove \S+$`)
	again.Wait()
}

// Paused, it begins none, and loses none.
func TestPause(t *testing.T) {
	dir := t.TempDir()
	paused := filepath.Join(dir, "tasks.paused")
	os.WriteFile(paused, nil, 0o600)
	p := preforktest.Start(t, "tasks", "-dir", dir, "-pace", "1ms", "-n", "3")
	preforktest.WaitFor(t, "a pid file", func() bool { _, err := os.Stat(filepath.Join(dir, "tasks.pid")); return err == nil })
	time.Sleep(50 * time.Millisecond)
	if lines := p.Lines(); len(lines) > 0 {
		t.Errorf("during the pause: %q", lines)
	}
	os.Remove(paused)
	p.Expect(`^all done, 0 pending$`)
	if lines := ended(t, p, "success "); len(lines) != 3 {
		t.Errorf("%q", lines)
	}
}
