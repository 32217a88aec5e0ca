package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// Stop sets the stopped flag: the running service ends, and cannot be started
// until Start is called. Stop does not wait for the end; Zap does. Stop is a
// no-op if the flag is set.
func (s *Service) Stop() error { return s.set(&s.stopFlag) }

// Start clears the stopped flag and reports whether it was set. It does not
// launch a process; it allows Run, Begin and Attach to succeed again.
func (s *Service) Start() (wasStopped bool, err error) { return s.clear(&s.stopFlag) }

// Stopped reports whether the stopped flag is set. The flag persists until
// Start is called, also after a crash. It persists after a reboot if its
// directory does, as /run does not.
//
// If others can create files in the directory of a flag, the flag must belong to
// root or to the user of the process that runs the service. Otherwise it is
// ignored. Others are also the directory's group, and its owner if that is
// another user.
//
// If the flag cannot be examined, Stopped reports the last known state, which is
// false at the beginning. Flags returns the reason.
func (s *Service) Stopped() bool {
	set, _ := s.isSet(&s.stopFlag)
	return set
}

// Pause sets the paused flag: the service waits after the current iteration
// until Resume is called. A paused service keeps its lock. A service that is
// started while the flag is set acquires the lock and then waits. The stopped
// flag takes precedence. Pause is a no-op if the flag is set.
func (s *Service) Pause() error { return s.set(&s.pauseFlag) }

// Resume clears the paused flag and reports whether it was set.
func (s *Service) Resume() (wasPaused bool, err error) { return s.clear(&s.pauseFlag) }

// Paused reports whether the paused flag is set, in the same way as Stopped.
func (s *Service) Paused() bool {
	set, _ := s.isSet(&s.pauseFlag)
	return set
}

// Flags reports whether the flags are set, as Stopped and Paused do. A non-nil
// error means that a flag cannot be examined, so the answer may be out of date.
// A program that reports on a service should use it.
func (s *Service) Flags() (stopped, paused bool, err error) {
	stopped, stopErr := s.isSet(&s.stopFlag)
	paused, pauseErr := s.isSet(&s.pauseFlag)
	return stopped, paused, s.wrap(errors.Join(stopErr, pauseErr))
}

// ClearFlags clears the stopped and the paused flag.
func (s *Service) ClearFlags() error {
	_, startErr := s.Start()
	_, resumeErr := s.Resume()
	return errors.Join(startErr, resumeErr)
}

// flag is one of the flags, with its last known state.
type flag struct {
	mu      sync.Mutex
	set     bool
	failure string // was logged, and has not ended
	ignored string // was logged
}

// ignoredFlagError reports a flag that others may have set.
type ignoredFlagError struct {
	path string
	uid  uint32 // its owner
	why  string
}

func (e *ignoredFlagError) Error() string {
	return fmt.Sprintf("flag %s is ignored: %s: remove it", e.path, e.why)
}

func isIgnored(err error) bool {
	var ignored *ignoredFlagError
	return errors.As(err, &ignored)
}

// path returns the path of a flag.
func (s *Service) path(f *flag) (string, error) {
	p, err := s.resolved()
	if f == &s.pauseFlag {
		return p.pause, err
	}
	return p.stop, err
}

func (s *Service) set(f *flag) error {
	path, err := s.path(f)
	if err == nil {
		err = createFlag(path)
	}
	if errors.Is(err, fs.ErrExist) {
		set, examineErr := s.examine(f)
		switch {
		case set && examineErr == nil, s.countsForHolder(examineErr):
			return nil
		case examineErr != nil:
			err = examineErr
		}
	}
	return s.wrap(err)
}

func (s *Service) clear(f *flag) (wasSet bool, err error) {
	path, err := s.path(f)
	if err == nil {
		err = removeFlag(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, s.wrap(err)
}

// isSet reports whether a flag is set for the process that runs the service,
// which may be another one. An error means that the flag cannot be examined.
func (s *Service) isSet(f *flag) (set bool, err error) {
	set, err = s.examine(f)
	if isIgnored(err) {
		return s.countsForHolder(err), nil
	}
	return set, err
}

// mustObey reports whether a flag is set for this process, which runs the
// service or is about to. An error means that the flag cannot be examined.
func (s *Service) mustObey(f *flag) (set bool, err error) {
	set, err = s.examine(f)
	s.logProblem(f, set, err)
	if isIgnored(err) {
		err = nil
	}
	return set, err
}

// examine examines a flag. If that fails, it returns the last known state with
// the error. An *ignoredFlagError means that the flag is not set for this
// process.
func (s *Service) examine(f *flag) (set bool, err error) {
	path, err := s.path(f)
	if err != nil {
		return false, err
	}
	f.mu.Lock() // until the state is stored, or an older one could replace it
	defer f.mu.Unlock()
	set, err = examineFlag(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		// Its directory does not exist. A flag that was set there may exist
		// in a directory that is just being replaced.
		if !f.set {
			return false, nil
		}
		return true, err
	case err != nil && !isIgnored(err):
		return f.set, err
	}
	f.set = set
	return set, err
}

// logProblem logs once that a flag is ignored or cannot be examined.
func (s *Service) logProblem(f *flag, set bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.failure = ""
	case isIgnored(err):
		// Once in all, or the user who sets it could fill the log.
		if f.failure = ""; f.ignored != err.Error() {
			f.ignored = err.Error()
			s.log().Warn("flag ignored", "err", err)
		}
	case f.failure != err.Error():
		f.failure = err.Error()
		s.log().Warn("flag cannot be examined, keeping its last known state", "set", set, "err", err)
	}
}

// countsForHolder reports whether an *ignoredFlagError is about a flag of the
// user whose process runs the service. Such a flag counts for that process.
func (s *Service) countsForHolder(err error) bool {
	var ignored *ignoredFlagError
	if !errors.As(err, &ignored) {
		return false
	}
	pid, running, err := s.Running()
	if err != nil || !running || pid == os.Getpid() {
		return false
	}
	p, _ := s.resolved()
	uid, err := ownerOf(p.pid)
	return err == nil && uid == ignored.uid
}
