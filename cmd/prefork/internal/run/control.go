package run

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/ops/service"
)

// lookAgain is the interval at which Restart and Stop look at the files of the
// other process, which may be start_server's own.
const lookAgain = 50 * time.Millisecond

// newService returns the service with the lock on a pid file.
func newService(pidFile string) (*service.Service, error) {
	path, err := filepath.Abs(pidFile)
	if err != nil {
		return nil, err
	}
	s, err := service.New(strings.TrimSuffix(filepath.Base(path), ".pid"), filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("--pid-file: %w", err)
	}
	s.PIDFile = path
	return s, nil
}

// running returns the service of a pid file, and the pid of its process.
func running(pidFile string) (*service.Service, int, error) {
	s, err := newService(pidFile)
	if err != nil {
		return nil, 0, err
	}
	pid, is, err := s.Running()
	switch {
	case err != nil:
		return nil, 0, err
	case !is:
		return nil, 0, fmt.Errorf("no process holds the lock on %s", pidFile)
	case pid == 0:
		return nil, 0, fmt.Errorf("the pid of the process that holds the lock on %s is unknown", pidFile)
	}
	return s, pid, nil
}

// Restart sends HUP to the process of a pid file, and waits until its status file
// has newer generations only.
func Restart(ctx context.Context, pidFile, statusFile string) error {
	if pidFile == "" || statusFile == "" {
		return usagef("--restart needs --pid-file and --status-file of the running program")
	}
	s, pid, err := running(pidFile)
	if err != nil {
		return err
	}
	_, before, err := readStatus(statusFile)
	if err != nil {
		return err
	}
	if err := send(pid, syscall.SIGHUP); err != nil {
		return err
	}
	return until(ctx, fmt.Sprintf("workers of generation %d are not replaced yet", before), func() (bool, error) {
		if is, _ := isRunning(s); !is {
			return false, fmt.Errorf("process %d has exited", pid)
		}
		lowest, _, err := readStatus(statusFile)
		return lowest > before, err
	})
}

// Stop sends TERM to the process of a pid file, and waits until it has released
// the lock.
func Stop(ctx context.Context, pidFile string) error {
	if pidFile == "" {
		return usagef("--stop needs --pid-file of the running program")
	}
	s, pid, err := running(pidFile)
	if err != nil {
		return err
	}
	if err := send(pid, syscall.SIGTERM); err != nil {
		return err
	}
	return until(ctx, fmt.Sprintf("process %d has not exited yet", pid), func() (bool, error) {
		is, err := isRunning(s)
		return !is, err
	})
}

func send(pid int, sent syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err == nil {
		defer p.Release()
		err = p.Signal(sent)
	}
	if err != nil {
		return fmt.Errorf("cannot send %s to process %d: %w", sig.Name(sent), pid, err)
	}
	return nil
}

func isRunning(s *service.Service) (bool, error) {
	_, is, err := s.Running()
	return is, err
}

// until calls done until it returns true, an error, or ctx ends.
func until(ctx context.Context, late string, done func() (bool, error)) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s", late)
		}
	}
}
