package service_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("controller", controller) }

// controller reports on the service in a directory that it may not write to,
// and stops it by a signal. Root mounts the directory read-only first.
func controller() {
	if os.Geteuid() == 0 {
		dir := os.Args[1]
		err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		if err == nil {
			err = syscall.Mount(dir, dir, "", syscall.MS_BIND, "")
		}
		if err == nil {
			err = syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
		}
		if err != nil {
			report("not permitted: %v", err)
			return
		}
	}
	s := programService()
	pid, running, err := s.Running()
	stopped, paused, flagsErr := s.Flags()
	report("status: %d %t %v, %t %t %v", pid, running, err, stopped, paused, flagsErr)
	outcome, err := s.Zap(context.Background(), service.Escalation{Term: time.Millisecond})
	report("zap: %v, %v", outcome, err)
	// The ended service has left its file, which could be used again.
	other, err := service.New("other", os.Args[1])
	if err == nil {
		_, err = other.Begin(context.Background())
	}
	report("begin: %v", err)
}

// A program that may not write to the directory can report on the service and
// stop it by a signal. It cannot run it, and the error says why.
func TestReadOnlyDirectory(t *testing.T) {
	s := newService(t)
	p := start(t, s, "untrapped")
	p.Expect(`^running `)
	c := preforktest.New(t, "controller", s.Dir())
	if os.Geteuid() == 0 {
		needPIDNamespace(t)
		c.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	} else {
		os.Chmod(s.Dir(), 0o555)
		defer os.Chmod(s.Dir(), 0o755)
	}
	c.Start()
	got := c.Expect(`^(not permitted|status): (.*)$`)
	if got[1] != "status" {
		preforktest.Skipf(t, "%s", got[0])
	}
	if want := strconv.Itoa(p.PID()) + " true <nil>, false false <nil>"; got[2] != want {
		t.Errorf("status: %s, want %s", got[2], want)
	}
	if got := c.Expect(`^zap: (.*)$`)[1]; !strings.HasPrefix(got, "exited, service test: create ") {
		t.Errorf("zap: %s", got)
	}
	p.Wait()
	if got := c.Expect(`^begin: (.*)$`)[1]; !strings.Contains(got, "cannot be written") && !strings.Contains(got, "read-only") {
		t.Errorf("begin: %s", got)
	}
	c.Wait()
}

// The service itself may be unable to use its directory; New accepts it
// nevertheless.
func TestNewInUnwritableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write to every directory")
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o500)
	defer os.Chmod(dir, 0o700)
	s, err := service.New("test", dir)
	if err != nil {
		t.Fatal(err)
	}
	checkRunning(t, s, 0)
	if _, err := s.Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be written") {
		t.Errorf("Begin: %v", err)
	}
}
