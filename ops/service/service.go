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
// paused flag. A running service finds them by their paths: if a path leads to
// another directory, because a link was switched, a directory was renamed, or a
// file system was mounted, the service uses that one within a second.
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
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
// process that has just acquired the lock to write its pid, and so do methods
// that find a flag of another user. Other methods do not block.
type Service struct {
	// PIDFile, StopFile and PauseFile are the paths that New has set. They
	// may be changed, also to files in different directories. A relative
	// path is relative to the working directory at the time of New.
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

	// Poll is the interval at which the files and their directories are
	// checked in addition to the notifications of the kernel. Zero, and more
	// than 500 ms, mean every 500 ms. If the kernel sends no notifications,
	// zero means every 200 ms: this applies to network file systems, and when
	// no inotify watch is available. On systems other than Linux a service on
	// a network file system should set it.
	Poll time.Duration

	// Heartbeat is the interval at which the pid file is touched while no
	// loop iteration touches it: while the service is paused, and with
	// Attach. Zero means never. Set it if a monitoring program should check
	// the age of the pid file.
	Heartbeat time.Duration

	// Logger receives the log messages. Nil means slog.Default().
	Logger *slog.Logger

	name, dir string
	cwd       string // at the time of New
	resolved  func() (paths, error)
	stopFlag  flag
	pauseFlag flag

	mu   sync.Mutex
	held *heldLock // while Attach runs the service
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
	// PID is zero if it is unknown: the process is in another PID namespace,
	// or only workers of a process that has exited hold the lock (see
	// ShareLock).
	PID int
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("service %s: %v with an unknown pid, "+
			"perhaps in another container, or as workers of an earlier process", e.Name, ErrRunning)
	}
	return fmt.Sprintf("service %s: %v as process %d", e.Name, ErrRunning, e.PID)
}

// Is reports whether target is ErrRunning.
func (e *RunningError) Is(target error) bool { return target == ErrRunning }

// New returns a Service with its files in dir. It creates no files, and the
// directory need not be writable: a program that only reports on a service can
// run as any user. A relative dir is relative to the working directory at the
// time of New, also after a later change of that.
//
// New returns an error if name is empty, blank, contains a slash, or is too long
// for the file system. It returns an error if dir is not a directory, or lets
// every user remove the files of others (it is writable for all without the
// sticky bit). In a worker New does not examine dir, because the worker may have
// no access to it.
func New(name, dir string) (*Service, error) {
	if strings.TrimSpace(name) == "" || strings.ContainsAny(name, "/\x00"+string(filepath.Separator)) {
		return nil, fmt.Errorf("service: invalid name %q: it must not be blank or contain a slash", name)
	}
	cwd, _ := os.Getwd() // required by relative paths only
	s := &Service{name: name, cwd: cwd}
	var err error
	s.dir, err = s.absolute(dir)
	s.PIDFile, s.StopFile, s.PauseFile = s.file(".pid"), s.file(".stopped"), s.file(".paused")
	s.resolved = sync.OnceValues(s.resolve)
	if prefork.IsWorker() {
		return s, nil
	}
	if err == nil {
		err = checkDir(s.dir)
	}
	for _, path := range []string{s.PIDFile, s.StopFile, s.PauseFile} {
		if err == nil {
			err = checkLength(path)
		}
	}
	if err != nil {
		return nil, s.wrap(err)
	}
	return s, nil
}

func (s *Service) file(suffix string) string { return filepath.Join(s.dir, s.name+suffix) }

// paths are the absolute paths of the files.
type paths struct{ pid, stop, pause string }

// resolve returns the paths that are in use from the first call of a method on.
func (s *Service) resolve() (paths, error) {
	p := paths{s.PIDFile, s.StopFile, s.PauseFile}
	for _, path := range []*string{&p.pid, &p.stop, &p.pause} {
		if *path == "" {
			return p, errors.New("PIDFile, StopFile and PauseFile must not be empty")
		}
		var err error
		if *path, err = s.absolute(*path); err == nil {
			err = checkLength(*path)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// absolute returns a path that is relative to the working directory at the time
// of New as an absolute one.
func (s *Service) absolute(path string) (string, error) {
	switch {
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	case s.cwd == "":
		return path, fmt.Errorf("path %q is relative, and the working directory is unknown: use an absolute path", path)
	}
	return filepath.Join(s.cwd, path), nil
}

// checkLength returns an error if no file can have this path.
func checkLength(path string) error {
	dir, name := filepath.Split(path)
	if limit := maxName(dir); len(name) > limit {
		return fmt.Errorf("file name %q has %d bytes, and the file system allows %d: choose a shorter name",
			name, len(name), limit)
	}
	if len(path) >= maxPath {
		return fmt.Errorf("path %q has %d bytes, and the system allows %d: choose a shorter one",
			path, len(path), maxPath-1)
	}
	return nil
}

// Name returns the name of the service.
func (s *Service) Name() string { return s.name }

// Dir returns the directory that was passed to New, as an absolute path.
func (s *Service) Dir() string { return s.dir }

// PID returns the pid in the pid file, whether or not that process is running.
// It returns 0 if there is no pid file, or no pid in its first line. Use
// Running to find out whether the service is running.
func (s *Service) PID() int {
	p, err := s.resolved()
	if err != nil {
		return 0
	}
	return pidfile.Read(p.pid)
}

// Running reports whether a process runs the service, and its pid. The pid is 0
// if it is unknown, for example if the process is in another PID namespace.
//
// The answer depends on the kernel's locks alone: on the pid file and, on Linux,
// on its path. It is therefore correct after a crash, when the pid has been
// recycled, for processes of other users, and while the pid file is removed. A
// non-nil error means that the answer is unknown.
func (s *Service) Running() (pid int, running bool, err error) {
	p, err := s.resolved()
	if err == nil {
		pid, running, err = pidfile.Holder(p.pid)
	}
	return pid, running, s.wrap(err)
}

// IsRunning reports whether this process runs the service.
func (s *Service) IsRunning() bool {
	pid, running, _ := s.Running()
	return running && pid == os.Getpid()
}

// stoppedError returns an ErrStopped that names the file to remove.
func (s *Service) stoppedError(path string) error {
	return s.wrap(fmt.Errorf("%w: remove %s", ErrStopped, path))
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
