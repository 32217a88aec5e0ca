package reaper

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supported tells whether this system can have reapers that are not its first process.
const Supported = true

// Run makes a reaper of this process, and does not return. path and args start the program, env is its environment but for
// the variable that told makes, of this process's pid and the descriptor at which the program finds the socket. It is called
// before the program has begun.
func Run(path string, args, env []string, told func(pid, fd int) string) {
	r := &reaper{pid: os.Getpid()}
	if err := r.run(path, args, env, told); err != nil {
		fmt.Fprintf(os.Stderr, "prefork: the reaper, process %d, cannot start the program: %v\n", r.pid, err)
		os.Exit(1)
	}
}

// A reaper is this process.
type reaper struct {
	pid  int
	sock int
	file *os.File // owns sock

	mu    sync.Mutex // held by who signals, and by who waits: so a signal meets no pid that was given to another
	chain chain
	woken chan struct{} // nil but while this process is stopped: the next SIGCONT closes it, and goes no further
}

func (r *reaper) run(path string, args, env []string, told func(pid, fd int) string) error {
	if r.pid != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	name := []byte("reaper\x00")
	unix.Prctl(unix.PR_SET_NAME, pointer(name), 0, 0, 0) // for ps; and who signals by the program's name means the manager

	r.mu.Lock()
	r.forwardAll(false) // what comes meanwhile waits for the lock
	theirs, err := r.start(path, args, env, told)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	r.forwardAll(true)
	for _, fd := range theirs {
		unix.Close(fd)
	}
	go r.listen()
	for {
		r.wait()
	}
}

// start starts the program, and returns which descriptors are of no use any more.
func (r *reaper) start(path string, args, env []string, told func(pid, fd int) string) (theirs []int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	r.sock, r.file = fds[0], os.NewFile(uintptr(fds[0]), "socket to the manager")
	handed := inherited()
	theirs = append(slices.Clone(handed), fds[1])
	files := []uintptr{0, 1, 2}
	for _, fd := range handed {
		for len(files) < fd {
			files = append(files, ^uintptr(0)) // closed
		}
		files = append(files, uintptr(fd))
	}
	env = append(slices.Clone(env), told(r.pid, len(files)))
	files = append(files, uintptr(fds[1]))
	// A group of its own: what the terminal sends to the group is to reach it once.
	attr := &syscall.SysProcAttr{Setpgid: true, Foreground: inForeground()}
	pid, _, err := syscall.StartProcess(path, args, &syscall.ProcAttr{Env: env, Files: files, Sys: attr})
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: path, Err: err}
	}
	r.chain = chain{{pid: pid, handle: -1}}
	return theirs, nil
}

// inherited are the descriptors, beside the standard streams, that this process was started with.
func inherited() (fds []int) {
	entries, _ := filepath.Glob("/proc/self/fd/*")
	for _, e := range entries {
		fd, err := strconv.Atoi(filepath.Base(e))
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds
}

// own are the signals that are about the reaper itself: those that cannot be caught, that the kernel sends for a fault, and that
// Go and the C library use. (What stops a process at its terminal comes from others here, as the reaper uses no terminal.)
var own = []syscall.Signal{
	unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL,
	unix.SIGTRAP, 32, 33, 34,
}

// forwardAll passes on all signals that can be. Each has a channel of its own, as in the manager, so that none crowds out
// another. Those that were ignored when this process was started (by nohup, say) are to be so when the program is; it can
// listen for them all the same, and so they are passed on once it was started.
func (r *reaper) forwardAll(ignored bool) {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if slices.Contains(own, sig) || signal.Ignored(sig) != ignored {
			continue
		}
		c := make(chan os.Signal, 1)
		signal.Notify(c, sig)
		go func() {
			for range c {
				r.forward(sig)
			}
		}()
	}
}

func (r *reaper) forward(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hear()
	if sig == unix.SIGCONT && r.woken != nil {
		close(r.woken)
		r.woken = nil
		return
	}
	switch m := r.chain.target(); {
	case m == nil:
	case m.handle >= 0:
		unix.PidfdSendSignal(m.handle, sig, nil, 0)
	default:
		unix.Kill(m.pid, sig)
	}
}

// listen hears what managers say.
func (r *reaper) listen() {
	conn, err := r.file.SyscallConn()
	if err != nil {
		return
	}
	conn.Read(func(uintptr) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.hear()
	})
}

// hear takes in what has been said; false at the end of the socket. The caller holds mu.
func (r *reaper) hear() bool {
	var buf [maxMessage]byte
	for {
		n, _, err := unix.Recvfrom(r.sock, buf[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err == unix.EAGAIN
		case n == 0:
			return false
		default:
			if m, err := parseMessage(string(buf[:n])); err == nil {
				r.chain.heard(m, open)
			}
		}
	}
}

// open is a handle on a manager that is not a child yet: its pid could be another's by the time that a signal comes.
func open(pid int) (handle int, close func()) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, nil // an old kernel
	}
	return fd, func() { unix.Close(fd) }
}

// wait waits until something has ended, and for all that has.
func (r *reaper) wait() {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
	if err != nil && err != unix.EINTR {
		fmt.Fprintf(os.Stderr, "prefork: the reaper, process %d, has nobody left to wait for: %v\n", r.pid, err)
		os.Exit(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if status.Stopped() {
			r.stopped(pid, status.StopSignal())
			continue
		}
		r.hear() // what it said before it ended comes first
		code, sig := status.ExitStatus(), syscall.Signal(0)
		if status.Signaled() {
			sig = status.Signal()
			code = 128 + int(sig)
		}
		r.chain.reaped(pid, code, sig, isChild)
		if r.chain.target() == nil {
			r.end(r.chain[len(r.chain)-1])
		}
	}
}

// stopped does as the manager does that its terminal has stopped, so that the shell comes to know; and when the shell has
// this process go on, so does the manager. The first process of a container has no shell, and nobody else who would. The
// caller holds mu.
//
// The SIGCONT by which this process goes on must end this wait and do nothing else: passed on in addition it would come
// late, when the terminal has stopped the manager anew, and undo that before it was seen.
func (r *reaper) stopped(pid int, sig syscall.Signal) {
	if _, ours := r.chain.find(pid); !ours || sig != unix.SIGTSTP && sig != unix.SIGTTIN && sig != unix.SIGTTOU {
		return
	}
	if r.pid != 1 {
		woken := make(chan struct{})
		r.woken = woken
		r.mu.Unlock()                  // this goroutine waits for nobody meanwhile, so that no pid becomes another's
		unix.Kill(r.pid, unix.SIGSTOP) // some of this thread's instructions may come before it is stopped
		<-woken
		r.mu.Lock()
		if inForeground() {
			unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pid)
		}
	}
	unix.Kill(-pid, unix.SIGCONT)
}

// inForeground tells whether the terminal that is the standard input means this process.
func inForeground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func isChild(pid int) bool {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// end ends this process as the last manager has ended. The first process of a container cannot be ended by a signal of its
// own; it says 128 and the signal, as shells do.
func (r *reaper) end(last *manager) {
	switch last.signal {
	case unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGKILL:
		if r.pid != 1 {
			signal.Reset(last.signal)
			unix.Kill(r.pid, last.signal)
			time.Sleep(time.Second) // it does not come back
		}
	}
	os.Exit(last.code)
}
