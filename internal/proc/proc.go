// Package proc starts, signals and waits for the processes of a manager.
//
// One goroutine, the loop of the Manager, owns every Process: it alone calls the methods below. A Table's own
// goroutines only tell that owner, through the notify function, which process has something to say; they touch
// no process, so that no descriptor is closed under a reader.
//
// On Linux a Table watches its processes by pidfd; elsewhere, and where the kernel or a seccomp filter denies pidfds,
// by one waiting goroutine a process.
package proc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrWouldBlock says that the control socket has nothing to read, or no room to write, now. It is no errno, so that it
// cannot be taken for the EAGAIN of a fork that ran into a limit on processes.
var ErrWouldBlock = errors.New("proc: control socket would block")

// Kind says what a Note is about.
type Kind uint8

const (
	// Readable: the control socket of the process has data, or is at its end. The owner reads with Read until
	// that returns ErrWouldBlock; until then no further Note of this kind comes for this process.
	Readable Kind = iota + 1
	// Exited: the process has ended and can be reaped. It comes once, unless Reap said "not yet".
	Exited
	// Ending: the process may be about to end, which Ending tells. It comes only after Foretell, some times or never, and
	// Exited comes all the same.
	Ending
)

// A Note tells that the process started as ID has something to say. The two kinds come in any order, and a Note can be
// early or late: Start may not have returned yet, or the owner may have read the data, or reaped the process, meanwhile.
type Note struct {
	ID   uint64
	Kind Kind
}

// Spec says how to start a process.
type Spec struct {
	Path string
	Args []string
	Env  []string

	// Dir is the working directory of the process; "" is that of this one.
	Dir string

	// Files are the descriptors of the process, by number: Files[i] becomes descriptor i. They are bare numbers and not
	// *os.File, because File.Fd can clear O_NONBLOCK on a socket that running processes share.
	Files []uintptr

	// Control is the index in Files at which the process gets its end of the control socket (what stands there is
	// replaced), or 0 for none.
	Control int

	// Attr is what the caller wishes beside what the Table sets; it is not changed. The process gets a group of its
	// own unless SameGroup or Attr (Setsid, Setpgid, Foreground) says otherwise. The Table takes PidFD for itself.
	Attr *syscall.SysProcAttr

	// SameGroup leaves the process in the process group of this one, unless Attr says otherwise: what the terminal sends
	// to the group, such as an interrupt, reaches both.
	SameGroup bool

	// Group keeps the handle, after Reap, for what is left of the process group that the process led: see
	// Process.SignalGroup and Process.Rest.
	Group bool

	// DieWithParent has the kernel kill the process when the manager dies, by Attr.Pdeathsig or else SIGKILL. It works
	// on Linux and FreeBSD and is ignored elsewhere. A process that changes its user afterwards is no longer killed.
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
	// not ended yet, and another note will come. After true the handle is closed, save for what Rest says, and what was
	// not read from the control socket is lost. The Rusage is nil where the Status is Unknown. A status is given once:
	// Unknown after that.
	Reap() (Status, *syscall.Rusage, bool)

	// Foretell asks for notes of kind Ending: a process with several threads can be seen to end a fraction of a millisecond before
	// it can be reaped. It costs two descriptors, and does nothing where they are not to be had, or the system cannot do it (Linux
	// before 6.9, and elsewhere). Ending tells, once after such a note, whether the process as a whole is ending: it will be
	// Exited soon and runs none of its program any more. False says nothing.
	Foretell()
	Ending() bool

	// SignalGroup, for Spec.Group, sends sig to the whole process group of a process that leads one, and else to the
	// process alone: a group whose number is not the pid of the process is that of others. After Reap it reaches what is
	// left of the group, and SIGKILL closes the handle then, as nothing outlives it. Like Signal it is a no-op, and no
	// error, where nothing is left.
	SignalGroup(sig syscall.Signal) error

	// Rest tells whether anything is left of the group of a process that was reaped; false closes the handle. No note
	// tells when that comes. What has ended counts until its parent has waited for it. Where the system cannot signal a
	// group without its leader (before Linux 6.9, and elsewhere), Rest is always false: there the group is sent SIGKILL
	// when its leader has ended, before that is waited for, since the number may be another's afterwards.
	Rest() bool

	// Read reads from the control socket without blocking: ErrWouldBlock when it has nothing now (and only then will
	// Readable come again), io.EOF at its end (and then no more notes of Readable come).
	Read(p []byte) (int, error)

	// Write writes to the control socket without blocking: ErrWouldBlock, with the count of what was written, when the
	// process has let the socket fill up. No note tells that it has room again; who meets this has a process that does
	// not read. EPIPE once the process has closed its end.
	Write(p []byte) (int, error)

	// WriteFile writes p to the control socket, and the descriptor fd with it: the process gets a duplicate, fd stays the
	// caller's. It writes both or nothing, and then ErrWouldBlock says that the socket is full; any other error says that
	// the process will not get it. p is not empty and has a few hundred bytes at most.
	WriteFile(p []byte, fd int) error
}

// A Table starts processes and watches them. Its notify function is called from any goroutine and must not block, and
// must not call the Table.
type Table interface {
	// Start starts a process under an id below 1<<62 that was not used before. Its errors wrap the errno, or os.ErrClosed
	// after Close.
	Start(id uint64, spec Spec) (Process, error)

	// Close ends the Table's goroutines; no note comes after it. Processes that have not been reaped are no longer
	// watched, but their handles stay good. Those that die with their parent keep the thread that started them until
	// they are reaped, and the portable table's goroutines wait until their processes end.
	Close() error

	// Name says how the processes are watched, for the log: "pidfd", "portable", or, on a Linux that denies pidfds,
	// "portable" with the reason in parentheses.
	Name() string
}

// NewTable makes the table of a Manager. Only tests replace it, by a table of
// pretended processes.
var NewTable = New

func errClosed() error { return fmt.Errorf("start in a closed table: %w", os.ErrClosed) }
