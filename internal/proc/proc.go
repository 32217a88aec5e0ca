// Package proc starts, signals and waits for the processes of a manager.
//
// One goroutine, the loop of the Manager, owns every Process: it alone calls the methods below. A Table's own
// goroutines only tell that owner, through the notify function, which process has something to say; they touch
// no process, so that no descriptor is closed under a reader.
package proc

import (
	"fmt"
	"syscall"
)

// Kind says what a Note is about.
type Kind uint8

const (
	// Readable: the control socket of the process has data, or is at its end. The owner reads with Read until
	// that returns ErrWouldBlock; until then no further Note of this kind comes for this process.
	Readable Kind = iota + 1
	// Exited: the process has ended and can be reaped. It comes once, unless Reap said "not yet".
	Exited
)

// A Note tells that the process started as ID has something to say.
type Note struct {
	ID   uint64
	Kind Kind
}

// Spec says how to start a process.
type Spec struct {
	Path string
	Args []string
	Env  []string

	// Files are the descriptors of the process, by number: Files[i] becomes descriptor i. They are bare numbers and not
	// *os.File, because File.Fd can clear O_NONBLOCK on a socket that running processes share.
	Files []uintptr

	// Control is the index in Files at which the process gets its end of the control socket (what stands there is
	// replaced), or 0 for none.
	Control int

	Attr *syscall.SysProcAttr // what the caller wishes beside what the Table sets; it is not changed

	// DieWithParent has the kernel kill the process when the manager dies, where the kernel can (Linux, FreeBSD).
	DieWithParent bool
}

// Status is how a process ended. Exactly one of the three holds: it exited with Code, or Signal ended it, or
// Unknown, because other code of the program waited for it first (a wait4(-1), say) and took the status.
type Status struct {
	Code     int
	Signal   syscall.Signal
	CoreDump bool
	Unknown  bool
}

// Clean tells whether the process ended by itself with exit code 0.
func (s Status) Clean() bool { return s == Status{} }

func (s Status) String() string {
	switch {
	case s.Unknown:
		return "status unknown"
	case s.Signal != 0 && s.CoreDump:
		return fmt.Sprintf("signal %v, core dumped", s.Signal)
	case s.Signal != 0:
		return fmt.Sprintf("signal %v", s.Signal)
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

// A Process is a handle on one process: signals through it never reach another that was given the same pid.
type Process interface {
	Pid() int

	// Signal sends sig; it is a no-op, and no error, once the process has ended.
	Signal(sig syscall.Signal) error

	// Reap takes the status of a process that has ended, after its Exited note, and frees it; false means that it has
	// not ended yet, and another note will come. After true the handle is closed.
	Reap() (Status, *syscall.Rusage, bool)

	// Read reads from the control socket without blocking: ErrWouldBlock when it has nothing now (and only then will
	// Readable come again), io.EOF at its end (and then no more notes of Readable come).
	Read(p []byte) (int, error)
}

// A Table starts processes and watches them.
type Table interface {
	// Start starts a process under an id that was not used before.
	Start(id uint64, spec Spec) (Process, error)

	// Close ends the Table's goroutines. Processes that have not been reaped are no longer watched.
	Close() error
}
