//go:build unix

package proc

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type portableProcess struct {
	t    *portableTable
	id   uint64
	pid  int
	tied bool

	process *os.Process
	exited  chan struct{}    // closed when the wait for the process has returned
	state   *os.ProcessState // valid after exited; nil if other code collected the status

	control *portableControl // nil if there is none, or it is closed

	group    bool       // Spec.Group
	mu       sync.Mutex // guards holdsPid, and is held while the group is signaled
	holdsPid bool       // not waited for yet, so no other process or group has the pid
}

func (p *portableProcess) Pid() int { return p.pid }

func (p *portableProcess) Signal(sig syscall.Signal) error {
	// os.Process does not count a failed wait as the exit of the process.
	if p.hasExited() {
		return nil
	}
	err := p.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (p *portableProcess) WatchExit()    {}
func (p *portableProcess) UnwatchExit()  {}
func (p *portableProcess) Exiting() bool { return false }

func (p *portableProcess) Read(b []byte) (int, error) {
	if p.control == nil {
		return 0, io.EOF
	}
	n, err := p.control.read(b)
	if err != nil && err != ErrWouldBlock {
		p.closeControl()
	}
	return n, err
}

func (p *portableProcess) Write(b []byte) (int, error) {
	if p.control == nil {
		return 0, os.NewSyscallError("sendmsg", unix.EPIPE)
	}
	return p.control.write(b)
}

func (p *portableProcess) WriteFile(b []byte, fd int) error {
	if p.control == nil {
		return os.NewSyscallError("sendmsg", unix.EPIPE)
	}
	return p.control.writeFile(b, fd)
}

func (p *portableProcess) Reap() (Status, *syscall.Rusage, bool) {
	if !p.hasExited() {
		return Status{}, nil, false
	}
	p.free()
	state := p.state
	p.state = nil
	if state == nil {
		return Status{Unknown: true}, nil, true
	}
	return statusOfWait(state.Sys().(syscall.WaitStatus)), state.SysUsage().(*syscall.Rusage), true
}

func statusOfWait(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Signal: ws.Signal(), CoreDump: ws.CoreDump()}
	}
	return Status{Code: ws.ExitStatus()}
}

func (p *portableProcess) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// wait waits for the exit of the process. An error is ECHILD: other code that
// waits for any child has collected the status.
func (p *portableProcess) wait() {
	if p.group {
		p.killGroup(AwaitExit(p.pid))
	}
	p.state, _ = p.process.Wait()
	close(p.exited)
	p.t.send(Note{p.id, Exited})
}

// discard kills and frees a process that cannot be watched.
func (p *portableProcess) discard() {
	p.process.Kill()
	p.process.Wait()
	p.free()
}

func (p *portableProcess) free() {
	p.process.Release()
	p.closeControl()
	p.t.mu.Lock()
	delete(p.t.procs, p)
	p.t.mu.Unlock()
	p.t.spawner.release(p.tied)
	p.tied = false
}

func (p *portableProcess) closeControl() {
	if p.control != nil {
		p.control.stop()
		p.control.file.Close()
		p.control = nil
	}
}

// A portableControl is the manager's end of a control socket. All its methods
// except watch belong to the owner.
type portableControl struct {
	file    *os.File
	conn    syscall.RawConn
	stopped bool

	noted atomic.Bool   // watch has sent a note and waits for rearm
	rearm chan struct{} // closed by stop
}

// newPortableControl takes ownership of fd, even if it fails.
func newPortableControl(fd int) (*portableControl, error) {
	c := &portableControl{file: os.NewFile(uintptr(fd), "control"), rearm: make(chan struct{}, 1)}
	var err error
	if c.conn, err = c.file.SyscallConn(); err == nil {
		err = c.file.SetReadDeadline(time.Time{}) // fails if the poller refused the descriptor
	}
	if err != nil {
		c.file.Close()
		return nil, err
	}
	return c, nil
}

// watch calls note each time the socket becomes readable, until stop is called.
func (c *portableControl) watch(note func()) {
	var peek [1]byte
	for {
		err := c.conn.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), peek[:], unix.MSG_PEEK)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		if err != nil {
			return
		}
		c.noted.Store(true)
		note()
		if _, ok := <-c.rearm; !ok {
			return
		}
	}
}

// read uses RawConn.Control, because RawConn.Read would block until watch has
// returned.
func (c *portableControl) read(b []byte) (n int, err error) {
	if cerr := c.conn.Control(func(fd uintptr) { n, err = readControl(int(fd), b) }); cerr != nil {
		return 0, cerr
	}
	if err == ErrWouldBlock && !c.stopped && c.noted.CompareAndSwap(true, false) {
		c.rearm <- struct{}{} // does not block: at most one is sent for each note
	}
	return n, err
}

func (c *portableControl) write(b []byte) (n int, err error) {
	if cerr := c.conn.Control(func(fd uintptr) { n, err = writeControl(int(fd), b) }); cerr != nil {
		return 0, cerr
	}
	return n, err
}

func (c *portableControl) writeFile(b []byte, file int) (err error) {
	if cerr := c.conn.Control(func(fd uintptr) { err = writeControlFile(int(fd), b, file) }); cerr != nil {
		return cerr
	}
	return err
}

// stop ends watch, which waits for the socket or for rearm.
func (c *portableControl) stop() {
	if !c.stopped {
		c.stopped = true
		close(c.rearm)
		c.file.SetReadDeadline(time.Unix(1, 0))
	}
}
