// Package service gives a program a name under which one process runs at a time, and lets people and scripts stop and
// pause it by touching a file. It is Perl's Proc::tored: the same files, in the same order of precedence, without its
// polling and without its mistakes about who is running.
//
// For a service called web in the directory /run/web there are
//
//	web.pid      the pid of the process that runs, locked by the kernel for as long as it runs
//	web.stopped  while this file exists the service stops, and does not start
//	web.paused   while this file exists the service waits
//
// A loop is put under it by Run, or by Begin and Loop.Next:
//
//	web, err := service.New("web", "/run/web")
//	if err != nil { ... }
//	err = web.Run(ctx, func(ctx context.Context) (more bool, err error) {
//		return true, doOneThing(ctx)
//	})
//
// A prefork.Manager is put under it by Attach. Everything else works from any process, with or without one that runs:
// PID, Running, Stop, Start, Pause, Resume, Zap.
package service

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Service is a service by its name. New makes one. Its fields may be changed before anything else is done with it; its
// methods may be called from any goroutine.
type Service struct {
	// The files, as New names them. A file in another directory than New was given is watched there.
	PIDFile, StopFile, PauseFile string

	// TrapSignals end Run and Begin's Loop after the callback that is under way. They are received only while the
	// service runs, and what they did before is what they do after it. With Attach the Manager's own table counts, and
	// this one must be empty.
	TrapSignals []os.Signal

	// LockTimeout is how long to wait for another process that runs this service to end. 0 means not at all, negative
	// means as long as the context lasts. The stopped flag ends the waiting.
	LockTimeout time.Duration

	// Poll is how often the flags are looked at in addition to being told of by the system. 0 means never where the
	// system tells, and each 200 ms where it does not: on network file systems, and where it has no watch left to give.
	Poll time.Duration

	// Heartbeat is how often the pid file is touched while there are no turns of a loop to touch it: while the service is
	// paused, and with Attach, by the manager that rules. 0 means never: then nothing wakes the process while nothing changes.
	Heartbeat time.Duration

	// Logger is told what the service does. nil means slog.Default().
	Logger *slog.Logger

	name, dir string
}

// ErrStopped says that a service was not started because its stopped flag is set.
var ErrStopped = errors.New("its stopped flag is set")

// ErrRunning says that a service was not started because another process runs it; the error is a *RunningError.
var ErrRunning = errors.New("it is already running")

// ErrLost says that a service ended because its pid file was removed and another process has taken the name.
var ErrLost = errors.New("its pid file was removed, and another process has taken the name")

// RunningError says who runs a service that could not be started.
type RunningError struct {
	Name string // the service's
	PID  int    // 0 where the process cannot be seen from here, as from outside its PID namespace
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("service %s: %v, as a process that cannot be seen from here", e.Name, ErrRunning)
	}
	return fmt.Sprintf("service %s: %v, as process %d", e.Name, ErrRunning, e.PID)
}

// Is says that a *RunningError is an ErrRunning.
func (e *RunningError) Is(target error) bool { return target == ErrRunning }

// New makes a Service called name, with its files in dir. It creates nothing. It fails if name has nothing but spaces in it
// or could lead to another directory, and if dir is no directory, cannot be written to, or lets every user remove the
// files of others (it is writable for all and not sticky). In a worker, which may be another user and see no such
// directory (prefork.Resources), dir is not looked at.
func New(name, dir string) (*Service, error) {
	if strings.TrimSpace(name) == "" || strings.ContainsAny(name, "/\x00"+string(filepath.Separator)) {
		return nil, fmt.Errorf("service: %q is no name: it needs a letter or so, and no slash", name)
	}
	if !prefork.IsWorker() {
		if _, err := pidfile.CheckDir(dir); err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
	}
	file := func(suffix string) string { return filepath.Join(dir, name+suffix) }
	return &Service{
		PIDFile: file(".pid"), StopFile: file(".stopped"), PauseFile: file(".paused"),
		name: name, dir: dir,
	}, nil
}

// Name is the service's name.
func (s *Service) Name() string { return s.name }

// Dir is the directory that New was given.
func (s *Service) Dir() string { return s.dir }

// PID is what the pid file says, whether that process runs or not; 0 if there is no such file, or no pid in its first line.
func (s *Service) PID() int { return pidfile.Read(s.PIDFile) }

// Running tells whether a process runs the service, and its pid: 0 where it cannot be seen from here, as from outside its
// PID namespace. What counts is that the kernel's lock on the pid file is held, so neither the pid of a dead process that
// was given to another nor a process of another user misleads. An error says that it could not be told.
func (s *Service) Running() (pid int, running bool, err error) {
	pid, running, err = pidfile.Holder(s.PIDFile)
	return pid, running, s.wrap(err)
}

// IsRunning tells whether it is this process that runs the service.
func (s *Service) IsRunning() bool {
	pid, running, _ := pidfile.Holder(s.PIDFile)
	return running && pid == os.Getpid()
}

// Stop sets the stopped flag: what runs the service ends, and it cannot be started until Start. It does not wait, as Zap
// does. Stop and Pause may be called again.
func (s *Service) Stop() error { return s.set(s.StopFile) }

// Start removes the stopped flag and tells whether there was one. It launches nothing: it allows Run and Begin to.
func (s *Service) Start() (was bool, err error) { return s.unset(s.StopFile) }

// Stopped tells whether the stopped flag is set. It stays set until Start, over crashes and reboots. In a directory in
// which every user may make files, a flag counts if it belongs to this process's user or to root.
func (s *Service) Stopped() bool { return s.isSet(s.StopFile) }

// Pause sets the paused flag: what runs the service waits from the end of its turn on, until Resume. It keeps the name
// meanwhile, and a service that is started while it is paused takes the name and waits. Stopping counts for more than
// pausing.
func (s *Service) Pause() error { return s.set(s.PauseFile) }

// Resume removes the paused flag and tells whether there was one.
func (s *Service) Resume() (was bool, err error) { return s.unset(s.PauseFile) }

// Paused tells whether the paused flag is set, as Stopped does.
func (s *Service) Paused() bool { return s.isSet(s.PauseFile) }

// ClearFlags removes both flags.
func (s *Service) ClearFlags() error {
	_, err1 := s.Start()
	_, err2 := s.Resume()
	return errors.Join(err1, err2)
}

func (s *Service) set(flag string) error {
	f, err := os.OpenFile(flag, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // with O_EXCL no link is followed
	if errors.Is(err, fs.ErrExist) {
		if s.isSet(flag) {
			return nil
		}
		return s.wrap(fmt.Errorf("%s is another user's, and does not count: remove it", flag))
	}
	if err != nil {
		return s.wrap(err)
	}
	return s.wrap(f.Close())
}

func (s *Service) unset(flag string) (was bool, err error) {
	err = os.Remove(flag)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, s.wrap(err)
}

func (s *Service) isSet(flag string) bool {
	info, err := os.Lstat(flag)
	return err == nil && (pidfile.Trusted(info) || !pidfile.Shared(filepath.Dir(flag)))
}

func (s *Service) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("service %s: %w", s.name, err)
}

func (s *Service) log() *slog.Logger {
	l := s.Logger
	if l == nil {
		l = slog.Default()
	}
	return l.With("service", s.name)
}
