//go:build unix

package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A spawner starts the processes of one Table. It is safe for concurrent use.
type spawner struct {
	mu     sync.Mutex  // guards the following
	thread chan func() // work for a goroutine locked to its thread; nil until needed
	tied   int         // unreaped processes that the kernel kills when that thread exits
	closed bool
}

// spawned is a process that has just been started.
type spawned struct {
	pid     int
	control int  // the manager's end of the control socket, or -1
	tied    bool // the process needs the spawner's thread until release
}

// spawn starts the process of spec with attr, which sysProcAttr made.
func (s *spawner) spawn(spec Spec, attr *syscall.SysProcAttr) (spawned, error) {
	child := spawned{control: -1}
	files := spec.Files
	if spec.Control != 0 {
		if spec.Control < 0 || spec.Control >= len(files) {
			return child, fmt.Errorf("control socket at descriptor %d of %d: %w", spec.Control, len(files), syscall.EINVAL)
		}
		ours, theirs, err := controlPair()
		if err != nil {
			return child, err
		}
		defer unix.Close(theirs)
		child.control = ours
		files = slices.Clone(files)
		files[spec.Control] = uintptr(theirs)
	}

	var err error
	start := func() {
		if !spec.KeepMask {
			defer unblockSignals()()
		}
		child.pid, _, err = syscall.StartProcess(spec.Path, spec.Args, &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Files: files, Sys: attr})
	}
	if followsThread(attr) {
		s.onThread(start)
		child.tied = true
	} else {
		start()
	}
	if err != nil {
		s.release(child.tied)
		if child.control >= 0 {
			unix.Close(child.control)
		}
		return spawned{control: -1}, startError(spec, err)
	}
	return child, nil
}

// startError adds the path to an error of a start. The kernel's errno can refer
// to spec.Dir instead of spec.Path.
func startError(spec Spec, err error) error {
	if spec.Dir != "" {
		if _, err := os.Stat(spec.Dir); err != nil {
			return fmt.Errorf("the directory of the new process: %w", err)
		}
	}
	err = &os.PathError{Op: "fork/exec", Path: spec.Path, Err: err}
	var limit unix.Rlimit
	// Package syscall needs up to two numbers for each descriptor.
	if errors.Is(err, syscall.EBADF) && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && 2*uint64(len(spec.Files)) > uint64(limit.Cur) {
		return fmt.Errorf("%w: no room for descriptors up to number %d below RLIMIT_NOFILE, which is %d: raise it (ulimit -n)", err, len(spec.Files)-1, limit.Cur)
	}
	return err
}

// onThread runs start on a thread that lives as long as the Table's processes.
// Linux sends the signal of PR_SET_PDEATHSIG when the thread that forked exits.
// Go ends a thread together with the goroutine that is locked to it, so the
// caller's thread could exit while the program continues. release must follow,
// also if the start fails.
func (s *spawner) onThread(start func()) {
	s.mu.Lock()
	if s.thread == nil {
		s.thread = make(chan func())
		go func(work <-chan func()) {
			// It is never unlocked: another goroutine could lock itself to the
			// thread and end it.
			runtime.LockOSThread()
			for f := range work {
				f()
			}
		}(s.thread)
	}
	s.tied++ // the thread lives on
	thread := s.thread
	s.mu.Unlock()
	done := make(chan struct{})
	thread <- func() {
		start()
		close(done)
	}
	<-done
}

// release must be called once for each process after it has been reaped.
func (s *spawner) release(tied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tied {
		s.tied--
	}
	s.endThread()
}

func (s *spawner) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.endThread()
}

// endThread ends the thread if nothing needs it. The caller holds mu.
func (s *spawner) endThread() {
	if s.closed && s.tied == 0 && s.thread != nil {
		close(s.thread)
		s.thread = nil
	}
}

// sysProcAttr returns a copy of spec.Attr with the Table's own settings.
func sysProcAttr(spec Spec) *syscall.SysProcAttr {
	attr := new(syscall.SysProcAttr)
	if spec.Attr != nil {
		*attr = *spec.Attr
	}
	// In a group of its own, a worker gets a signal of the terminal only from
	// the manager. A session leader has a group already, and setpgid would fail
	// for it. Foreground implies Setpgid.
	if !spec.SameGroup && !attr.Setsid && !attr.Foreground {
		attr.Setpgid = true
	}
	if spec.DieWithParent {
		dieWithParent(attr)
	}
	return attr
}
