//go:build unix

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/ops/monitor"
	"github.com/prefork-go/prefork/preforktest"
)

// startMonitor keeps the services of a directory running, with a control socket
// that PREFORK_CONTROL names.
func startMonitor(t *testing.T, dir string) *monitor.Monitor {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	m, err := monitor.New(monitor.Config{Dir: dir, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	pm, err := prefork.New(prefork.Config{Name: "watch", Logger: log, Untrapped: true})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(testprog.SocketDir(t), "watch"+client.Suffix)
	detach, err := control.Attach(control.Config{Path: socket, Services: m.Control()}, pm)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- m.Run(context.Background()) }()
	t.Cleanup(func() {
		m.Kill()
		if err := errors.Join(<-done, detach(), pm.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(client.EnvSocket, socket)
	return m
}

// The verbs on real services. Between them sv of runit, which reads supervise/,
// shows the same line.
func TestServicesForReal(t *testing.T) {
	sv := preforktest.NeedCommand(t, "sv", "Debian: apt-get install runit")
	dir := t.TempDir()
	for path, content := range map[string]string{
		"web/run": "exec sleep 1000", "web/log/run": "exec cat >/dev/null",
		"deaf/run": "trap '' TERM\necho >&3\nexec sleep 1000", "deaf/notification-fd": "3", "deaf/down": "",
		"batch/run": "exit 0", "batch/down": "",
		"checked/run": "exec sleep 1000", "checked/check": "[ -e good ]", "checked/down": "",
	} {
		path = filepath.Join(dir, path)
		if base := filepath.Base(path); base == "run" || base == "check" {
			content = "#!/bin/sh\n" + content + "\n"
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := startMonitor(t, dir)
	preforktest.WaitFor(t, "services", func() bool {
		all := m.Services()
		return len(all) == 4 && all[3].Log != nil && all[3].Log.PID != 0
	})
	numbers := regexp.MustCompile(`\(pid \d+\)|\d+s\b`)
	mask := func(text string) string {
		return numbers.ReplaceAllString(strings.ReplaceAll(strings.TrimSuffix(text, "\n"), dir+"/", ""), "N")
	}
	const log = "; run: log: N N"
	pid := 0
	var theirs, ours string
	defer func() {
		if t.Failed() {
			t.Logf("prefork sv status: %q; sv status: %q", ours, theirs)
		}
	}()
	for _, row := range []struct {
		args string
		code int
		out  string
	}{
		{"start web", 0, "ok: run: web: N N" + log},
		{"-v pause web", 0, "ok: run: web: N N, paused" + log},
		{"-v cont web", 0, "ok: run: web: N N" + log},
		{"restart web", 0, "ok: run: web: N N" + log},
		{"-v kill web", 0, "ok: run: web: N N" + log},
		{"-v once web", 0, "ok: run: web: N N, want down" + log},
		{"stop web", 0, "ok: down: web: N, normally up" + log},
		{"restart web", 0, "ok: run: web: N N" + log},
		{"-v down --keep web", 0, "ok: down: web: N" + log},
		{"start web", 0, "ok: run: web: N N, normally down" + log},
		{"up --keep web", 0, ""},
		{"restart web/log", 0, "ok: run: web/log: N N"},
		{"start deaf", 0, "ok: run: deaf: N N, normally down"},
		{"-w 0 stop deaf", 1, "timeout: run: deaf: N N, normally down, want down, got TERM"},
		{"-w 0 force-stop deaf", 1, "kill: run: deaf: N N, normally down, want down, got TERM"},
		{"stop deaf", 0, "ok: down: deaf: N"},
		{"-v once batch", 0, ""},
		{"stop batch", 0, "ok: down: batch: N"},
		{"-w 1 start checked", 1, "timeout: run: checked: N N, normally down"},
		{"check web checked", 1, ""},
		{"status", 0, "down: batch: N\nrun: checked: N N, normally down\ndown: deaf: N\nrun: web: N N" + log},
		{"exit -v web", 0, "ok: ended: web"},
		{"try-restart web", 1, "fail: web: service web has ended"},
		{"up web", 0, ""},
		{"start web", 0, "ok: run: web: N N" + log},
	} {
		args := strings.Fields(row.args)
		if row.args == "check web checked" {
			args = append([]string{"-w", "0"}, args...)
		}
		code, out, errs := command(append([]string{"sv"}, args...)...)
		if got := mask(out); code != row.code || got != row.out && row.out != "" || errs != "" {
			t.Fatalf("%s: exit %d, %q, %q, want %d, %q", row.args, code, got, errs, row.code, row.out)
		}
		name := args[len(args)-1]
		if strings.HasPrefix(row.args, "restart web") && row.args != "restart web/log" || row.args == "-v kill web" {
			i := m.Services()[3]
			if i.PID == pid {
				t.Errorf("%s: still process %d", row.args, pid)
			}
			pid = i.PID
		}
		if name == "status" || strings.Contains(out, "ended") {
			continue
		}
		preforktest.WaitFor(t, "sv says the same after "+row.args, func() bool {
			b, _ := exec.Command(sv, "status", filepath.Join(dir, name)).Output()
			_, line, _ := command("sv", "status", name)
			theirs, ours = mask(string(b)), mask(line)
			return theirs == ours
		})
	}
}
