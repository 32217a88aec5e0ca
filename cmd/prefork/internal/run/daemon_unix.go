//go:build unix

package run

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/ops/capture"
)

// daemonEnv has the pid of the process that started this one with daemonize, or
// daemonRuns. Workers do not get it.
const daemonEnv = "PREFORK_RUN_DAEMON"

// daemonPipe is the descriptor of the pipe to that process.
const daemonPipe = 3

// daemonize starts this program again in a session of its own, with its arguments,
// and returns nil when that has a generation that is ready. Until then the new
// process has the streams of this one, and an interrupt of this one stops it.
func daemonize() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), daemonEnv+"="+strconv.Itoa(os.Getpid()))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	var interrupted atomic.Int32
	go func() {
		for {
			select {
			case sig := <-interrupts:
				interrupted.Store(int32(sig.(syscall.Signal)))
				cmd.Process.Signal(syscall.SIGTERM)
			case <-ended:
				return
			}
		}
	}()
	if n, _ := r.Read(make([]byte, 1)); n > 0 {
		return nil
	}
	err = cmd.Wait()
	if sig := interrupted.Load(); err == nil && sig != 0 { // as a shell reports it
		return &endedError{128 + int(sig)}
	}
	if err == nil || cmd.ProcessState.Exited() {
		return &endedError{cmd.ProcessState.ExitCode()} // it has printed the reason
	}
	return fmt.Errorf("process %d, which should have become the daemon: %v", cmd.Process.Pid, cmd.ProcessState)
}

// A daemon is this process, if daemonize has started it, or its successor. It
// implements io.Writer for the messages of the manager.
type daemon struct {
	parent *os.File     // the pipe to the caller; nil if there is none
	log    atomic.Int32 // descriptor to which messages go; that of the caller's stderr at first
	lost   atomic.Int64 // messages since the log took the last one
	inLog  bool
}

// daemonRuns is the value of daemonEnv in a daemon, for its successor.
const daemonRuns = "runs"

// takeDaemon returns nil in a process that the user started.
func takeDaemon() (*daemon, error) {
	value := os.Getenv(daemonEnv)
	if value == "" {
		return nil, nil
	}
	os.Setenv(daemonEnv, daemonRuns)
	d := &daemon{}
	stderr, err := unix.FcntlInt(os.Stderr.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	d.log.Store(int32(stderr))
	if value == daemonRuns { // its messages go where the crash output of its predecessor goes
		return d, nil
	}
	unix.CloseOnExec(daemonPipe)
	d.parent = os.NewFile(daemonPipe, "pipe to the caller")
	// The command of the log must not keep the streams of the caller.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	os.Stdout, os.Stderr = null, null
	return d, err
}

// Write never waits: the log is read by this process, which would wait for itself.
// A message that the log does not take is lost, and counted.
func (d *daemon) Write(p []byte) (int, error) {
	fd := int(d.log.Load())
	if n := d.lost.Swap(0); n > 0 && !d.write(fd, fmt.Appendf(nil, "%d messages were lost, because the log took none\n", n)) {
		d.lost.Add(n)
	}
	if !d.write(fd, p) {
		d.lost.Add(1)
	}
	return len(p), nil
}

// write reports whether the descriptor took all of p.
func (*daemon) write(fd int, p []byte) bool {
	for {
		n, err := unix.Write(fd, p)
		if err != unix.EINTR {
			return err == nil && n == len(p)
		}
	}
}

// detach gives up the streams of the caller, whose daemonize then returns. Messages
// go to the log, as lines of slot -1, and what the Go runtime prints in a crash to
// the file path, or nowhere.
func (d *daemon) detach(c *capture.Capture, path string) error {
	if d.inLog {
		return nil
	}
	d.inLog = true
	crash, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer crash.Close()
	w, err := c.Open(-1)
	if err != nil {
		return err
	}
	out, err := unix.FcntlInt(w.Stderr.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.Cancel()
		return os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(out, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	w.Started(os.Getpid())
	before := d.log.Swap(int32(out))
	unix.Close(int(before))
	for _, stream := range []int{1, 2} {
		err = errors.Join(err, unix.Dup2(int(crash.Fd()), stream))
	}
	if err != nil || d.parent == nil {
		return err
	}
	_, err = d.parent.Write([]byte{1})
	d.parent.Close()
	if errors.Is(err, syscall.EPIPE) { // the caller was killed
		return nil
	}
	return err
}
