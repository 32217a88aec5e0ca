// Package service ensures that at most one process runs a program under a name,
// and lets people and scripts stop or pause it by creating a file. It ports
// Perl's Proc::tored: the files are the same and take precedence in the same
// order. Unlike the original it detects the running process by a lock, and
// polls only if the kernel sends no notifications.
//
// A service named web in the directory /run/web uses three files:
//
//	web.pid      the pid of the running process, which holds a lock on it
//	web.stopped  while it exists, the service stops and cannot be started
//	web.paused   while it exists, the service is paused
//
// The first is the pid file. The others are called the stopped flag and the
// paused flag.
//
// [Service.Run] runs a loop as a service, [Service.Begin] does the same around
// a loop of the caller:
//
//	web, err := service.New("web", "/run/web")
//	if err != nil { ... }
//	err = web.Run(ctx, func(ctx context.Context) (more bool, err error) {
//		return true, doOneThing(ctx)
//	})
//
// [Service.Attach] runs a prefork.Manager as a service.
//
// The other methods control a service from any process, whether or not the
// service is running: [Service.Running] reports its pid, [Service.Stop],
// [Service.Pause], [Service.Start] and [Service.Resume] set and clear the
// flags, and [Service.Zap] stops the service and waits for it.
//
// On systems other than Unix, and on Solaris and AIX, New returns an error that
// matches errors.ErrUnsupported.
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

// A Service is a program that runs under a name, in one process at a time. Use
// New to create one.
//
// The fields may be changed until the first call of a method. All methods are
// safe for concurrent use. Run and Zap block, and so do Begin and Attach while
// they wait for the lock. Running and IsRunning wait at most 500 ms for a
// process that has just acquired the lock to write its pid. Other methods do
// not block.
type Service struct {
	// PIDFile, StopFile and PauseFile are the paths that New has set. They
	// may be changed, also to files in different directories.
	PIDFile, StopFile, PauseFile string

	// TrapSignals are the signals that end a Run or a Loop after the current
	// call of work. They are trapped only while the service runs. Afterwards
	// they have the effect that they had before. TrapSignals must be empty
	// for Attach: prefork.Config.TrapSignals applies instead.
	TrapSignals []os.Signal

	// LockTimeout is the time to wait for another process that runs the
	// service to exit. Zero means no time; a negative value means no limit.
	// Waiting also ends with the context, and when the stopped flag is set.
	LockTimeout time.Duration

	// Poll is the interval at which the flags are checked in addition to the
	// notifications of the kernel. Zero means never. If the kernel sends no
	// notifications, zero means every 200 ms: this applies to network file
	// systems, and when no inotify watch is available. On systems other than
	// Linux a service on a network file system should set it.
	Poll time.Duration

	// Heartbeat is the interval at which the pid file is touched while no
	// loop iteration touches it: while the service is paused, and with
	// Attach. Zero means never, so that an idle service does not wake up. Set
	// it if a monitoring program should check the age of the pid file.
	Heartbeat time.Duration

	// Logger receives the log messages. Nil means slog.Default().
	Logger *slog.Logger

	name, dir string
}

// ErrStopped is returned by Run, Begin and Attach if the stopped flag is set.
var ErrStopped = errors.New("stopped flag is set")

// ErrRunning matches the *RunningError that Run, Begin and Attach return if
// another process runs the service.
var ErrRunning = errors.New("already running")

// ErrLockLost is returned if a service ended because its pid file was removed
// and another process has acquired the lock since then.
var ErrLockLost = errors.New("pid file was removed and another process has acquired the lock")

// A RunningError is returned if another process runs the service. It matches
// ErrRunning.
type RunningError struct {
	Name string // of the service
	PID  int    // zero if unknown, for example in another PID namespace
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("service %s: %v with an unknown pid, perhaps in another container", e.Name, ErrRunning)
	}
	return fmt.Sprintf("service %s: %v as process %d", e.Name, ErrRunning, e.PID)
}

// Is reports whether target is ErrRunning.
func (e *RunningError) Is(target error) bool { return target == ErrRunning }

// New returns a Service with its files in dir. It creates no files.
//
// New returns an error if name is empty, blank, or contains a slash, and if dir
// is not a directory, cannot be written, or lets every user remove the files of
// others (it is writable for all without the sticky bit). In a worker New does
// not examine dir, because the worker may have no access to it.
func New(name, dir string) (*Service, error) {
	if strings.TrimSpace(name) == "" || strings.ContainsAny(name, "/\x00"+string(filepath.Separator)) {
		return nil, fmt.Errorf("service: invalid name %q: it must not be blank or contain a slash", name)
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

// Name returns the name of the service.
func (s *Service) Name() string { return s.name }

// Dir returns the directory that was passed to New.
func (s *Service) Dir() string { return s.dir }

// PID returns the pid in the pid file, whether or not that process is running.
// It returns 0 if there is no pid file, or no pid in its first line. Use
// Running to find out whether the service is running.
func (s *Service) PID() int { return pidfile.Read(s.PIDFile) }

// Running reports whether a process runs the service, and its pid. The pid is 0
// if it is unknown, for example if the process is in another PID namespace.
//
// The answer depends on the kernel's lock on the pid file alone. It is
// therefore correct after a crash, when the pid has been recycled, and for
// processes of other users. A non-nil error means that the answer is unknown.
func (s *Service) Running() (pid int, running bool, err error) {
	pid, running, err = pidfile.Holder(s.PIDFile)
	return pid, running, s.wrap(err)
}

// IsRunning reports whether this process runs the service.
func (s *Service) IsRunning() bool {
	pid, running, _ := pidfile.Holder(s.PIDFile)
	return running && pid == os.Getpid()
}

// Stop sets the stopped flag: the running service ends, and cannot be started
// until Start is called. Stop does not wait for the end; Zap does. Stop is a
// no-op if the flag is set.
func (s *Service) Stop() error { return s.set(s.StopFile) }

// Start clears the stopped flag and reports whether it was set. It does not
// launch a process; it allows Run, Begin and Attach to succeed again.
func (s *Service) Start() (wasStopped bool, err error) { return s.clear(s.StopFile) }

// Stopped reports whether the stopped flag is set. The flag persists until
// Start is called, also after a crash or a reboot.
//
// If every user can create files in the directory of a flag, the flag must
// belong to this process's user or to root. Otherwise it is ignored.
func (s *Service) Stopped() bool { return s.isSet(s.StopFile) }

// Pause sets the paused flag: the service waits after the current iteration
// until Resume is called. A paused service keeps its lock. A service that is
// started while the flag is set acquires the lock and then waits. The stopped
// flag takes precedence. Pause is a no-op if the flag is set.
func (s *Service) Pause() error { return s.set(s.PauseFile) }

// Resume clears the paused flag and reports whether it was set.
func (s *Service) Resume() (wasPaused bool, err error) { return s.clear(s.PauseFile) }

// Paused reports whether the paused flag is set. It ignores the same flags as
// Stopped.
func (s *Service) Paused() bool { return s.isSet(s.PauseFile) }

// ClearFlags clears the stopped and the paused flag.
func (s *Service) ClearFlags() error {
	_, startErr := s.Start()
	_, resumeErr := s.Resume()
	return errors.Join(startErr, resumeErr)
}

func (s *Service) set(flag string) error {
	// O_EXCL does not follow symbolic links.
	f, err := os.OpenFile(flag, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		if s.isSet(flag) {
			return nil
		}
		return s.wrap(fmt.Errorf("flag %s belongs to another user and is ignored: remove it", flag))
	}
	if err != nil {
		return s.wrap(err)
	}
	return s.wrap(f.Close())
}

func (s *Service) clear(flag string) (wasSet bool, err error) {
	err = os.Remove(flag)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, s.wrap(err)
}

func (s *Service) isSet(flag string) bool {
	info, err := os.Lstat(flag)
	return err == nil && (pidfile.Trusted(info) || !pidfile.WorldWritable(filepath.Dir(flag)))
}

// stoppedError returns an ErrStopped that names the file to remove.
func (s *Service) stoppedError() error {
	return s.wrap(fmt.Errorf("%w: remove %s", ErrStopped, s.StopFile))
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
