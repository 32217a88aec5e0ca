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

// daemonEnv has the pid of the process that started this one with daemonize.
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
	go func() {
		for {
			select {
			case <-interrupts:
				cmd.Process.Signal(syscall.SIGTERM)
			case <-ended:
				return
			}
		}
	}()
	if n, _ := r.Read(make([]byte, 1)); n > 0 {
		return nil
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		return &endedError{cmd.ProcessState.ExitCode()} // it has printed the reason
	}
	return fmt.Errorf("process %d, which should have become the daemon: %v", cmd.Process.Pid, cmd.ProcessState)
}

// A daemon is this process, if daemonize has started it. It implements io.Writer
// for the messages of the manager.
type daemon struct {
	out    atomic.Pointer[os.File] // stderr of the caller, and later the log
	parent *os.File                // nil after detach
}

// takeDaemon returns nil in a process that daemonize did not start.
func takeDaemon() (*daemon, error) {
	parent := os.Getenv(daemonEnv)
	os.Unsetenv(daemonEnv)
	if parent != strconv.Itoa(os.Getppid()) {
		return nil, nil
	}
	unix.CloseOnExec(daemonPipe)
	d := &daemon{parent: os.NewFile(daemonPipe, "pipe to the caller")}
	d.out.Store(os.Stderr)
	// The command of the log must not keep the streams of the caller.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	os.Stdout, os.Stderr = null, null
	return d, err
}

func (d *daemon) Write(p []byte) (int, error) { return d.out.Load().Write(p) }

// detach gives up the streams of the caller, whose daemonize then returns. Messages
// go to the log, as lines of slot -1, and what the Go runtime prints in a crash to
// the file path, or nowhere.
func (d *daemon) detach(c *capture.Capture, path string) error {
	if d.parent == nil {
		return nil
	}
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
	w.Started(os.Getpid())
	d.out.Store(os.NewFile(uintptr(out), "log"))
	for _, stream := range []int{1, 2} {
		err = errors.Join(err, unix.Dup2(int(crash.Fd()), stream))
	}
	if err != nil {
		return err
	}
	_, err = d.parent.Write([]byte{1})
	d.parent.Close()
	d.parent = nil
	if errors.Is(err, syscall.EPIPE) { // the caller was killed
		return nil
	}
	return err
}
