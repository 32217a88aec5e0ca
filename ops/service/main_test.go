//go:build unix

package service_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

var long = flag.Bool("long", false, "repeat as often as is promised, not a tenth of it")

var programs = map[string]func(){"starter": starter, "loop": loop}

func TestMain(m *testing.M) { preforktest.Main(m, programs) }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// newService makes a service in a directory of its own.
func newService(t testing.TB) *service.Service {
	t.Helper()
	s, err := service.New("test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// in is the service of a program, whose first argument is the directory.
func in() *service.Service {
	s, err := service.New("test", os.Args[1])
	if err != nil {
		say("cannot: %v", err)
		os.Exit(1)
	}
	return s
}

// starter waits for the end of its standard input, becomes the user of its second argument if there is one, and runs the
// service until it is stopped.
func starter() {
	say("up")
	io.Copy(io.Discard, os.Stdin)
	if len(os.Args) > 2 {
		become(os.Args[2])
	}
	s := in()
	l, err := s.Begin(context.Background())
	if running := (*service.RunningError)(nil); errors.As(err, &running) {
		say("held by %d: %v", running.PID, err)
		return
	} else if err != nil {
		say("cannot: %v", err)
		return
	}
	say("runs %d", os.Getpid())
	for l.Next() {
		<-l.Context().Done()
	}
	if err := l.Close(); err != nil {
		say("close: %v", err)
	}
	say("ended")
}

func become(user string) {
	id, err := strconv.Atoi(user)
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
	}
	if err != nil {
		say("not permitted: %v", err)
		os.Exit(0)
	}
}

// loop runs the service with TERM trapped; each turn waits for a line of standard input and says so.
func loop() {
	s := in()
	s.TrapSignals = []os.Signal{syscall.SIGTERM}
	n := 0
	err := s.Run(context.Background(), func(ctx context.Context) (bool, error) {
		if n++; n == 1 {
			say("runs %d", os.Getpid())
		}
		<-ctx.Done()
		say("told: %v", context.Cause(ctx))
		return true, nil
	})
	say("returned %v after %d", err, n)
}

// start starts a program in the service's directory.
func start(t *testing.T, s *service.Service, program string, args ...string) *preforktest.Program {
	t.Helper()
	return preforktest.Start(t, program, append([]string{s.Dir()}, args...)...)
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	return err == nil
}

func wantRunning(t *testing.T, s *service.Service, pid int) {
	t.Helper()
	got, running, err := s.Running()
	if err != nil || running != (pid != 0) || got != pid {
		t.Errorf("Running = %d, %t, %v; want %d", got, running, err, pid)
	}
}

// open makes a directory of tests one that every user can write to, as /tmp is.
func open(t *testing.T, dir string) {
	t.Helper()
	for d := filepath.Dir(dir); strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
}
