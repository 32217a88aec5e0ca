//go:build unix

package monitor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
)

// shown waits until a service is as wanted on the control socket. It looks only
// when something has changed.
func (r *rig) shown(name string, holds func(s *client.Service) bool) (shown client.Service) {
	r.t.Helper()
	c := r.m.Control()
	end := time.After(waitLimit)
	for {
		changed := c.Changed()
		shown = client.Service{}
		for _, s := range c.Services() {
			switch {
			case s.Name == name:
				shown = s
			case s.Name+"/log" == name && s.Log != nil:
				shown = *s.Log
			}
		}
		if holds(&shown) {
			return shown
		}
		select {
		case <-changed:
		case <-end:
			r.t.Fatalf("%s: nothing has changed of %+v\nlog:\n%s", name, shown, r.log)
		}
	}
}

// Each change wakes those that wait for it.
func TestControlChanges(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.service("late", "run: echo here; read line <go; echo >&3; exec sleep 1000", "notification-fd: 3", "finish: exit 125")
	if err := syscall.Mkfifo(filepath.Join(r.dir, "late", "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.service("broken", "down: ")
	r.file("broken/run", "#!/nosuch/interpreter\n")
	r.start()
	do := func(name string, c byte) {
		t.Helper()
		if err := r.m.Control().Do(name, c); err != nil {
			t.Fatal(err)
		}
	}
	isUp := func(s *client.Service) bool { return s.State == client.StateRun && s.Ready }
	web := r.shown("web", isUp)
	if web.PID == 0 || web.Want != client.WantUp || web.Kind != "service" || !web.NormallyUp || web.Path != filepath.Join(r.dir, "web") || web.Log != nil || len(web.PIDs) != 1 {
		t.Errorf("web: %+v", web)
	}
	do("web", 'p')
	r.shown("web", func(s *client.Service) bool { return s.Paused })
	do("web", 'd')
	down := r.shown("web", func(s *client.Service) bool { return s.State == client.StateDown })
	if len(down.Tally) != 1 || down.Tally[0].End != "signal SIGTERM" || down.Want != client.WantDown {
		t.Errorf("web: %+v", down)
	}
	do("web", 'x')
	r.shown("web", func(s *client.Service) bool { return s.State == client.StateEnded })
	do("web", 'u')
	r.shown("web", isUp)

	r.shown("late", func(s *client.Service) bool { return s.State == client.StateRun && !s.Ready })
	if err := os.WriteFile(filepath.Join(r.dir, "late", "go"), []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	r.shown("late", isUp)
	do("late", 'k')
	if s := r.shown("late", func(s *client.Service) bool { return s.GaveUp }); s.PID != 0 {
		t.Errorf("late: %+v", s)
	}

	if s := r.shown("broken", func(s *client.Service) bool { return s.State == client.StateDown }); s.NormallyUp {
		t.Errorf("broken: %+v", s)
	}
	do("broken", 'u')
	r.shown("broken", func(s *client.Service) bool { return strings.Contains(s.Problem, "/nosuch/interpreter") })

	r.file("prog", "#!/bin/sh\nexec sleep 1000\n")
	r.change(scan.Added, "prog")
	prog := r.shown("prog", func(s *client.Service) bool { return s.State == client.StateRun })
	if prog.Kind != "program" || !prog.NormallyUp || prog.Want != client.WantUp {
		t.Errorf("prog: %+v", prog)
	}
	r.change(scan.Removed, "prog")
	r.shown("prog", func(s *client.Service) bool { return s.Name == "" })
}

// In a stop no service is meant to be down, so that the program is not ready.
func TestStartedInAStop(t *testing.T) {
	for name, stop := range map[string]func(*rig){
		"Shutdown": func(r *rig) { r.m.Shutdown() },
		"context":  func(r *rig) { r.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.service("web", "run: "+stubborn)
			r.start()
			pid := atoi(t, r.want(`up (\d+)`)[0])
			r.shown("web", func(s *client.Service) bool { return s.Ready && r.m.Control().Started() })
			stop(r)
			r.shown("web", func(s *client.Service) bool { return s.Want == client.WantExit })
			if r.m.Control().Started() {
				t.Error("started")
			}
			syscall.Kill(pid, syscall.SIGKILL)
		})
	}
}

func TestEndOf(t *testing.T) {
	for want, status := range map[string]prefork.ExitStatus{
		"exitcode 3": {Code: 3}, "exitcode 0": {}, "signal SIGKILL": {Signal: syscall.SIGKILL}, "signal SIGSEGV": {Signal: syscall.SIGSEGV, CoreDump: true},
	} {
		if got := endOf(status); got != want {
			t.Errorf("%v: %q, want %q", status, got, want)
		}
	}
}

// The logger is shown with its service, and the file down is written.
func TestControlKeep(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up, "log/run: exec cat")
	r.file("prog", "#!/bin/sh\nexec sleep 1000\n")
	r.start()
	if s := r.shown("web/log", func(s *client.Service) bool { return s.PID != 0 }); s.Kind != "logger" || s.Path != filepath.Join(r.dir, "web", "log") {
		t.Errorf("logger: %+v", s)
	}
	c := r.m.Control()
	for _, down := range []bool{true, false} {
		for _, name := range []string{"web", "web/log"} {
			if err := c.Keep(name, down); err != nil {
				t.Fatal(err)
			}
			r.shown(name, func(s *client.Service) bool { return s.NormallyUp != down })
		}
	}
	if err := c.Keep("prog", true); err == nil || !strings.Contains(err.Error(), "chmod -x") {
		t.Errorf("Keep of a program: %v", err)
	}
}
