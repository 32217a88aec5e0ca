// Package proc starts, signals and waits for the processes of a manager.
//
// One goroutine, the loop of the Manager, owns every Process and is the only
// one that calls its methods. The goroutines of a Table notify that owner of
// changes and touch no process, so no descriptor is closed under a reader. All
// Managers of a process share one Table, of which each has a part of its own;
// see [Share].
//
// On Linux a Table watches its processes by pidfd. On other systems, and if the
// kernel or a seccomp filter refuses pidfds, it uses one waiting goroutine for
// each process.
package proc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// NewTable is the function by which a Manager makes its Table. Only package
// proctest replaces it.
var NewTable = Share

// ErrWouldBlock is returned if the control socket has nothing to read, or no
// room to write, at the moment. It is not an errno, so that it cannot be
// mistaken for the EAGAIN of a fork that met a limit on processes.
var ErrWouldBlock = errors.New("proc: control socket would block")

// Kind is the kind of a Note.
type Kind uint8

const (
	// Readable means that the control socket has data or is at its end. The
	// owner should call Read until it returns ErrWouldBlock. Until then the
	// Table sends no further Readable note for this process.
	Readable Kind = iota + 1
	// Exited means that the process has exited and can be reaped. It is sent
	// once, and again only after Reap returned false.
	Exited
	// Exiting means that the process may have begun to exit; Process.Exiting
	// reports whether it has. It is sent only after WatchExit, any number of
	// times or never. Exited follows in either case.
	Exiting
)

// A Note notifies the owner of a change in the process started as ID. Notes of
// different kinds come in any order. A Note can be early, before Start has
// returned, or late, after the owner has read the data or reaped the process.
type Note struct {
	ID   uint64
	Kind Kind
}

// Spec describes a process to start.
type Spec struct {
	Path string
	Args []string
	Env  []string

	// Dir is the working directory of the process. Empty means the directory of
	// the manager.
	Dir string

	// Files are the descriptors of the process: Files[i] becomes descriptor i.
	// They are numbers and not *os.File, because File.Fd can clear O_NONBLOCK
	// on a socket that running processes share.
	Files []uintptr

	// Control is the index in Files that receives the process's end of the
	// control socket; the number at that index is ignored. Zero means that the
	// process has no control socket.
	Control int

	// Attr holds the caller's attributes; Start does not change it. The process
	// leads a new process group unless SameGroup or Attr (Setsid, Setpgid,
	// Foreground) requests otherwise. The Table sets PidFD itself.
	Attr *syscall.SysProcAttr

	// SameGroup keeps the process in the process group of the manager, unless
	// Attr requests otherwise. A signal that the terminal sends to the group,
	// such as an interrupt, then reaches both.
	SameGroup bool

	// KeepMask starts the process with the blocked signals of the manager. By
	// default it blocks none, on Linux.
	KeepMask bool

	// Group keeps the handle open after Reap for leftover processes of the
	// group that the process led. See Process.SignalGroup and
	// Process.HasLeftovers.
	Group bool

	// DieWithParent makes the kernel kill the process when the manager dies, by
	// Attr.Pdeathsig or, by default, SIGKILL. It works on Linux and FreeBSD and
	// is ignored elsewhere. The kernel drops the setting when the process
	// changes its user.
	DieWithParent bool
}

// Status describes how a process ended: it exited with Code, or Signal killed
// it, or the status is Unknown. Unknown means that other code of the program
// waited for the process first, for example by wait4(-1).
type Status struct {
	Code     int
	Signal   syscall.Signal
	CoreDump bool
	Unknown  bool
}

// Clean reports whether the process exited by itself with code 0.
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

// A Process is a handle on one process. It never signals another process that
// received the same pid later. Its methods do not block and must be called only
// by the owner of its Table.
type Process interface {
	Pid() int

	// Signal sends sig. It is a no-op once the process has ended.
	Signal(sig syscall.Signal) error

	// Reap collects the status of a process that has exited and closes the
	// handle, except for leftover processes of Spec.Group. It should be called
	// after an Exited note. It returns false if the process has not exited; a
	// further Exited note then follows. Data that was not read from the control
	// socket is lost. The Rusage is nil if the Status is Unknown. A second call
	// returns Unknown.
	Reap() (Status, *syscall.Rusage, bool)

	// WatchExit requests notes of kind Exiting: a process with several threads
	// shows its exit a fraction of a millisecond before it can be reaped. It
	// uses two descriptors, until UnwatchExit or Reap. It is a no-op if they
	// are not available or the system lacks the feature (Linux before 6.9, and
	// other systems).
	WatchExit()

	// UnwatchExit ends WatchExit. The owner should call it after an Exiting
	// note, to free the descriptors.
	UnwatchExit()

	// Exiting reports whether the whole process is about to exit. Such a
	// process runs none of its program any more, and Exited follows soon. False
	// means only that the kernel does not show it.
	Exiting() bool

	// SignalGroup sends sig to the process group that the process leads, if
	// Spec.Group is set, and otherwise to the process alone. A group whose
	// number is not the pid of the process belongs to others and is not
	// signaled. After Reap it sends to the leftover processes of the group;
	// SIGKILL then closes the handle, since nothing survives it. It is a no-op
	// if the group is empty.
	SignalGroup(sig syscall.Signal) error

	// HasLeftovers reports whether Reap or the last ReapLeftovers left
	// processes of the group. A process that has exited counts until its parent
	// has waited for it. HasLeftovers is always false if the system cannot
	// signal a group without its leader (Linux before 6.9, and other systems).
	// There the Table sends SIGKILL to the group after its leader has exited
	// and before it waits for the leader, because the number can belong to
	// another group afterwards.
	HasLeftovers() bool

	// ReapLeftovers waits for leftover processes that have exited and whose
	// parent is now the manager. Then it checks whether any is left, and closes
	// the handle if not. No Note announces the exit of a leftover process, so
	// the owner must call ReapLeftovers repeatedly while HasLeftovers is true.
	ReapLeftovers()

	// Read reads from the control socket. It returns ErrWouldBlock if there is
	// nothing to read, and a Readable note follows when there is. It returns
	// io.EOF at the end of the socket, and no Readable note follows.
	Read(p []byte) (int, error)

	// Write writes to the control socket. If the socket is full, it returns the
	// number of bytes written and ErrWouldBlock; no Note announces room. It
	// returns EPIPE if the process has closed its end.
	Write(p []byte) (int, error)

	// WriteFile writes p and a duplicate of the descriptor fd to the control
	// socket; the caller keeps fd. It writes both or neither. ErrWouldBlock
	// means that the socket is full. After any other error the process will not
	// receive them. p must not be empty and should not exceed a few hundred
	// bytes.
	WriteFile(p []byte, fd int) error
}

// A Table starts processes and watches them. It calls its notify function from
// any goroutine; the function must not block and must not call the Table.
type Table interface {
	// Start starts a process under an unused id below 1<<62. Its errors wrap
	// the errno, or os.ErrClosed after Close.
	Start(id uint64, spec Spec) (Process, error)

	// Close ends the Table's goroutines and all notes. Handles of processes
	// that have not been reaped remain valid, but the Table no longer watches
	// them. The thread that started processes with DieWithParent remains until
	// they are reaped. The portable table's goroutines remain until their
	// processes exit.
	Close() error

	// Name returns how the Table watches processes, for the log: "pidfd" or
	// "portable". On a Linux that refuses pidfds the reason follows "portable"
	// in parentheses.
	Name() string
}

func errClosed() error { return fmt.Errorf("start in a closed table: %w", os.ErrClosed) }

// IsDisconnected reports whether a message could not be sent because the process
// has exited; its exit is handled when it is reaped.
func IsDisconnected(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
