//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

func TestStart(t *testing.T) {
	dir := testprog.SocketDir(t)
	flag := filepath.Join(dir, "web.stopped")
	for range 2 {
		if err := os.WriteFile(flag, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr := command("-s", filepath.Join(dir, "web.prefork.sock"), "start")
		if _, err := os.Stat(flag); status != 0 || err == nil || !strings.Contains(stdout, "cleared") {
			t.Errorf("status %d, %q, %q, %v", status, stdout, stderr, err)
		}
	}
	if status, stdout, stderr := command("-s", "web", "--json", "up", "--dir", dir); status != 0 || !strings.Contains(stdout, `"was_stopped":false`) {
		t.Errorf("not stopped: status %d, %q, %q", status, stdout, stderr)
	}
	if status, _, stderr := command("-s", filepath.Join(dir, "api.prefork.sock"), "start"); status != 3 || !strings.Contains(stderr, "--dir") {
		t.Errorf("without files: status %d, %q", status, stderr)
	}
	if status, _, stderr := command("start"); status != 2 || !strings.Contains(stderr, "-s") {
		t.Errorf("without a name: status %d, %q", status, stderr)
	}
}

// startFakeProcess starts a fake in another process.
func startFakeProcess(t *testing.T) (p *preforktest.Program, socket string) {
	t.Helper()
	socket = filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	p = preforktest.New(t, "fake", socket)
	in, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		os.Remove(socket)
	})
	p.Start()
	p.Expect("open")
	return p, socket
}

// A manager that does not stop gets SIGTERM, then SIGKILL.
func TestZap(t *testing.T) {
	shorten(t)
	p, socket := startFakeProcess(t)
	status, stdout, stderr := command("-s", socket, "zap", "--term", "20ms")
	if status != 0 || !strings.Contains(stdout, "has exited after SIGTERM") || !strings.Contains(stderr, "sending it SIGTERM") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	if s := p.Wait().Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGTERM {
		t.Errorf("ended by %v", s)
	}

	p, socket = startFakeProcess(t)
	preforktest.Freeze(t, p.PID())
	status, stdout, stderr = command("-s", socket, "-q", "force-stop", "--term", "10ms", "--kill", "50ms")
	if status != 0 || stdout != "" {
		t.Errorf("suspended: status %d, %q, %q", status, stdout, stderr)
	}
	if s := p.Wait().Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("ended by %v", s)
	}
}

// Who may not stop the manager does not signal it either.
func TestZapNotPermitted(t *testing.T) {
	f := startFake(t)
	f.on("POST /v1/stop", refusal(403, "stop is for root"))
	if status, _, stderr := command("-s", f.socket, "--timeout", "1s", "zap", "--term", "0", "--kill", "0"); status != 4 || !strings.Contains(stderr, "stop is for root") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// A service without a socket is stopped by its files.
func TestZapService(t *testing.T) {
	dir := testprog.SocketDir(t)
	s, err := service.New("web", dir)
	if err != nil {
		t.Fatal(err)
	}
	status, _, stderr := command("-s", "web", "zap", "--dir", dir)
	if status != 3 || !s.Stopped() {
		t.Errorf("status %d, %q, stopped %t", status, stderr, s.Stopped())
	}
	if status, _, stderr = command("-s", filepath.Join(dir, "web.prefork.sock"), "zap"); status != 3 || !strings.Contains(stderr, "stopped flag") {
		t.Errorf("by the directory of the socket: status %d, %q", status, stderr)
	}
	s.Start()
}

func TestLastRecord(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "web.journal")
	defer os.Remove(path)
	long := strings.Repeat(`{"time":"2026-11-25T06:00:00Z","type":"exit"}`+"\n", 3000)
	for _, test := range []struct {
		text  string
		hour  int
		ended bool
	}{
		{"", 0, false},
		{`{"time":"2026-11-25T07:00:00Z","type":"ended"}` + "\n", 7, true},
		{long + `{"time":"2026-11-25T08:00:00Z","type":"worker"}` + "\n" + `{"time":"2026-11-25T09`, 8, false},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		at, ended := lastRecord(path)
		if test.hour > 0 && !at.Equal(time.Date(2026, 11, 25, test.hour, 0, 0, 0, time.UTC)) || test.hour == 0 && !at.IsZero() || ended != test.ended {
			t.Errorf("%.50s: %v, %t", test.text, at, ended)
		}
	}
}
