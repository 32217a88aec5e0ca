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

// Supported reports whether this system supports reapers other than its first
// process.
const Supported = true

// Run turns this process into a reaper and does not return. It must be called
// before the program has started its own work.
func Run(cfg Config) {
	r := &reaper{cfg: cfg, pid: os.Getpid()}
	if err := r.run(); err != nil {
		r.report(fmt.Sprintf("start program: %v", err))
		os.Exit(1)
	}
}

// reaper is the state of this process.
type reaper struct {
	cfg  Config
	pid  int
	sock int
	file *os.File // owns sock

	// mu is held while signalling and while reaping, so that no signal is
	// sent to a pid that the kernel has reused.
	mu    sync.Mutex
	chain chain
	// resumed is nil except while this process is stopped. The next SIGCONT
	// closes it and is not forwarded.
	resumed chan struct{}
}

func (r *reaper) run() error {
	if r.pid != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	name := []byte(r.cfg.name() + "\x00")
	// The name is for ps. It also keeps signals that are sent by the name of
	// the program (killall) away from the reaper: they are for the manager.
	unix.Prctl(unix.PR_SET_NAME, pointer(name), 0, 0, 0)

	r.mu.Lock()
	r.forwardAll(false) // signals that arrive during start wait for the lock
	passed, err := r.start()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	r.forwardAll(true)
	for _, fd := range passed {
		if !r.cfg.Kill || !mayHoldLock(fd) {
			unix.Close(fd)
		}
	}
	go r.readLink()
	if r.cfg.Guard != nil {
		go r.followGuard()
	}
	for {
		r.reap()
	}
}

// mayHoldLock reports whether a lock of flock on this descriptor can keep the
// program from being started a second time. A reaper that kills keeps it: the
// kernel must not free the lock before all processes are gone. A socket or a pipe
// that it kept would stay open for its other end.
func mayHoldLock(fd int) bool {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return false
	}
	kind := stat.Mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// start starts the program. It returns the descriptors that the program has
// inherited.
func (r *reaper) start() (passed []int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	r.sock, r.file = fds[0], os.NewFile(uintptr(fds[0]), "socket to the manager")
	extra := inherited()
	passed = append(slices.Clone(extra), fds[1])
	files := []uintptr{0, 1, 2}
	for _, fd := range extra {
		for len(files) < fd {
			files = append(files, ^uintptr(0)) // closed
		}
		files = append(files, uintptr(fd))
	}
	env := append(slices.Clone(r.cfg.Env), r.cfg.LinkEnv(r.pid, len(files)))
	files = append(files, uintptr(fds[1]))
	// The program gets its own process group: a signal that the terminal
	// sends to the group must reach the program once.
	attr := &syscall.SysProcAttr{Setpgid: true, Foreground: inForeground()}
	pid, _, err := syscall.StartProcess(r.cfg.Path, r.cfg.Args, &syscall.ProcAttr{Env: env, Files: files, Sys: attr})
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: r.cfg.Path, Err: err}
	}
	r.chain = chain{{pid: pid, handle: -1}}
	return passed, nil
}

// inherited returns the descriptors, except the standard streams, that this
// process was started with.
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

// notForwarded lists the signals that concern the reaper itself. They cannot be
// caught, or the kernel sends them for a fault, or Go and the C library use
// them. The stop signals of a terminal are not in the list: the reaper does not
// use its terminal, so only other processes send them to it.
var notForwarded = []syscall.Signal{
	unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL,
	unix.SIGTRAP, 32, 33, 34,
}

// forwardAll forwards all signals that can be forwarded. As in the manager,
// each signal has a channel of its own, so that none displaces another.
//
// A signal that was ignored when this process started (by nohup, for instance)
// must also be ignored in the program. The reaper can catch it nevertheless, so
// it is forwarded once the program is running.
func (r *reaper) forwardAll(ignored bool) {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if slices.Contains(notForwarded, sig) || signal.Ignored(sig) != ignored {
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
	r.readMessages()
	if sig == unix.SIGCONT && r.resumed != nil {
		close(r.resumed)
		r.resumed = nil
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

// readLink applies messages from managers as they arrive.
func (r *reaper) readLink() {
	conn, err := r.file.SyscallConn()
	if err != nil {
		return
	}
	conn.Read(func(uintptr) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.readMessages()
	})
}

// readMessages applies all messages that are queued on the socket. It returns
// false at the end of the socket. The caller must hold mu.
func (r *reaper) readMessages() bool {
	var buf [maxMessage]byte
	for {
		n, _, err := unix.Recvfrom(r.sock, buf[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err == unix.EAGAIN
		case n == 0 && r.ended():
			return false
		default:
			if m, err := parseMessage(string(buf[:n])); err == nil {
				r.chain.apply(m, open)
			}
		}
	}
}

// ended reports whether no message can follow on the socket. A read returns 0 at
// its end, and also for an empty packet, which any holder of the other end can
// send. Packets may be queued behind that one, also after the other end is
// closed.
func (r *reaper) ended() bool {
	fds := []unix.PollFd{{Fd: int32(r.sock), Events: unix.POLLRDHUP}}
	switch n, err := unix.Poll(fds, 0); {
	case err == nil && n == 0, err == unix.EINTR:
		return false // the next read decides
	case err != nil:
		return true
	}
	queued, err := unix.IoctlGetInt(r.sock, unix.TIOCINQ)
	return err != nil || queued == 0
}

// open returns a pidfd for a manager that is not a child of the reaper. By the
// time a signal arrives, its pid may belong to another process.
func open(pid int) (handle int, close func()) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, nil // an old kernel
	}
	return fd, func() { unix.Close(fd) }
}

// reap blocks until a process has changed state, then handles every process
// that has.
func (r *reaper) reap() {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
	r.mu.Lock() // after followGuard, until this process exits
	defer r.mu.Unlock()
	if err != nil && err != unix.EINTR {
		r.report(fmt.Sprintf("no children left: %v", err))
		os.Exit(1)
	}
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
			r.followStop(pid, status.StopSignal())
			continue
		}
		r.readMessages() // messages sent before the exit come first
		code, sig := status.ExitStatus(), syscall.Signal(0)
		if status.Signaled() {
			sig = status.Signal()
			code = 128 + int(sig)
		}
		r.chain.reaped(pid, code, sig, isChild)
		if r.chain.target() == nil {
			r.killDescendants()
			r.exit(r.chain[len(r.chain)-1])
		}
	}
}

// followStop stops this process after the terminal has stopped the manager, so
// that the shell notices. When the shell resumes this process, it resumes the
// manager. The first process of a container has no shell, so there the manager
// is resumed at once. The caller must hold mu.
//
// The SIGCONT that resumes this process must have no other effect. If it were
// forwarded as well, it could arrive after the terminal has stopped the manager
// again, and undo that stop before the reaper has seen it.
func (r *reaper) followStop(pid int, sig syscall.Signal) {
	if _, ours := r.chain.find(pid); !ours || !r.follows(sig) {
		return
	}
	if r.pid != 1 {
		resumed := make(chan struct{})
		r.resumed = resumed
		// Until this goroutine locks again it reaps nothing, so no pid is
		// reused. After the SIGSTOP this thread may run a few instructions
		// more.
		r.mu.Unlock()
		unix.Kill(r.pid, unix.SIGSTOP)
		<-resumed
		r.mu.Lock()
		if inForeground() {
			unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pid)
		}
	}
	unix.Kill(-pid, unix.SIGCONT)
}

// follows reports whether this process stops after a signal has stopped its
// manager. A reaper follows its manager by SIGSTOP, and its guard follows it.
func (r *reaper) follows(sig syscall.Signal) bool {
	return sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU || sig == unix.SIGSTOP && r.cfg.isGuard()
}

// followGuard kills all descendants after the guard has been killed.
func (r *reaper) followGuard() {
	r.cfg.Guard.Wait()
	r.mu.Lock() // for ever: nothing else happens any more
	r.killDescendants()
	os.Exit(1)
}

// inForeground reports whether this process is in the foreground group of the
// terminal on its standard input.
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

// exit ends this process the way the last manager ended. The first process of a
// container cannot kill itself with a signal; it exits with 128 plus the
// signal, as shells do.
func (r *reaper) exit(last *manager) {
	switch last.signal {
	case unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGKILL:
		if r.pid != 1 {
			signal.Reset(last.signal)
			unix.Kill(r.pid, last.signal)
			time.Sleep(time.Second) // the signal arrives during the sleep
		}
	}
	os.Exit(last.code)
}
