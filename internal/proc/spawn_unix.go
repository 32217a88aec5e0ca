//go:build unix

package proc

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// A spawner starts the processes of one Table, and belongs to the Table's owner.
type spawner struct {
	thread chan func() // to the goroutine that stays on one thread; nil until the first process needs it
	tied   int         // processes not reaped that would be killed by the end of that thread
	closed bool
}

// spawned is a process that has just been started.
type spawned struct {
	pid     int
	control int  // the manager's end of the control socket, non-blocking, or -1
	tied    bool // the process needs the spawner's thread: release must be called when it has been reaped
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
		child.pid, _, err = syscall.StartProcess(spec.Path, spec.Args, &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Files: files, Sys: attr})
	}
	if followsThread(attr) {
		s.onThread(start)
		child.tied = true
	} else {
		start()
	}
	if err != nil {
		if child.control >= 0 {
			unix.Close(child.control)
		}
		return spawned{control: -1}, startError(spec, err)
	}
	if child.tied {
		s.tied++
	}
	return child, nil
}

// startError says of which file an error is: the kernel's errno can be that of the directory, too.
func startError(spec Spec, err error) error {
	if spec.Dir != "" {
		if _, err := os.Stat(spec.Dir); err != nil {
			return err
		}
	}
	return &os.PathError{Op: "fork/exec", Path: spec.Path, Err: err}
}

// onThread runs start where the kernel takes the parent to be alive as long as the Table's processes live. Linux sends
// the signal of PR_SET_PDEATHSIG when the thread that forked ends, and Go ends a thread with the goroutine that was
// locked to it, even while the program goes on: the caller's thread would not do.
func (s *spawner) onThread(start func()) {
	if s.thread == nil {
		s.thread = make(chan func())
		go func(work <-chan func()) {
			// Never unlocked: a thread given back could be taken, and ended, by any other goroutine that locks itself to it.
			runtime.LockOSThread()
			for f := range work {
				f()
			}
		}(s.thread)
	}
	done := make(chan struct{})
	s.thread <- func() {
		start()
		close(done)
	}
	<-done
}

// release tells that a process has been reaped.
func (s *spawner) release(tied bool) {
	if tied {
		s.tied--
	}
	s.endThread()
}

func (s *spawner) close() {
	s.closed = true
	s.endThread()
}

func (s *spawner) endThread() {
	if s.closed && s.tied == 0 && s.thread != nil {
		close(s.thread)
		s.thread = nil
	}
}

// sysProcAttr returns a copy of what the caller of Start wishes, with what the Table adds to it.
func sysProcAttr(spec Spec) *syscall.SysProcAttr {
	attr := new(syscall.SysProcAttr)
	if spec.Attr != nil {
		*attr = *spec.Attr
	}
	// A signal from the terminal is for the manager to forward. The leader of a session has a group already, and
	// setpgid would fail for it; Foreground implies Setpgid.
	if !spec.SameGroup && !attr.Setsid && !attr.Foreground {
		attr.Setpgid = true
	}
	if spec.DieWithParent {
		dieWithParent(attr)
	}
	return attr
}
