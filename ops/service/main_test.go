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

var long = flag.Bool("long", false, "run the number of repetitions that the documents state, not a tenth")

var programs = map[string]func(){"starter": starter, "loop": loop}

func TestMain(m *testing.M) { preforktest.Main(m, programs) }

// report prints a line for the test to expect.
func report(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// newService returns a service in a new directory.
func newService(t testing.TB) *service.Service {
	t.Helper()
	s, err := service.New("test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// programService returns the service of a test program, whose first argument is
// the directory.
func programService() *service.Service {
	s, err := service.New("test", os.Args[1])
	if err != nil {
		report("error: %v", err)
		os.Exit(1)
	}
	return s
}

// starter waits for the end of its standard input, changes to the user of its
// optional second argument, and runs the service until it is stopped.
func starter() {
	report("started")
	io.Copy(io.Discard, os.Stdin)
	if len(os.Args) > 2 {
		setUser(os.Args[2])
	}
	s := programService()
	l, err := s.Begin(context.Background())
	if running := (*service.RunningError)(nil); errors.As(err, &running) {
		report("held by %d: %v", running.PID, err)
		return
	} else if err != nil {
		report("error: %v", err)
		return
	}
	report("running %d", os.Getpid())
	for l.Next() {
		<-l.Context().Done()
	}
	if err := l.Close(); err != nil {
		report("close: %v", err)
	}
	report("ended")
}

func setUser(user string) {
	id, err := strconv.Atoi(user)
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
	}
	if err != nil {
		report("not permitted: %v", err)
		os.Exit(0)
	}
}

// loop runs the service with SIGTERM trapped. Each call of work waits until the
// context ends, and reports the cause.
func loop() {
	s := programService()
	s.TrapSignals = []os.Signal{syscall.SIGTERM}
	n := 0
	err := s.Run(context.Background(), func(ctx context.Context) (bool, error) {
		if n++; n == 1 {
			report("running %d", os.Getpid())
		}
		<-ctx.Done()
		report("cause: %v", context.Cause(ctx))
		return true, nil
	})
	report("returned %v after %d", err, n)
}

// start starts a test program with the service's directory as its first
// argument. Its standard input is empty.
func start(t *testing.T, s *service.Service, program string, args ...string) *preforktest.Program {
	t.Helper()
	return preforktest.Start(t, program, append([]string{s.Dir()}, args...)...)
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	return err == nil
}

func checkRunning(t *testing.T, s *service.Service, pid int) {
	t.Helper()
	got, running, err := s.Running()
	if err != nil || running != (pid != 0) || got != pid {
		t.Errorf("Running = %d, %t, %v; want %d", got, running, err, pid)
	}
}

// needOtherUser skips the test if this process may not create files and
// processes of another user.
func needOtherUser(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	other := os.Geteuid() + 1 // otherUID may be this user
	if err := os.Chown(file, other, -1); err != nil {
		preforktest.Skipf(t, "needs permission to create files and processes of another user: %v", err)
	}
}

// makeWorldWritable gives a directory of a test the mode of /tmp, and makes its
// parents accessible to every user.
func makeWorldWritable(t *testing.T, dir string) {
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
