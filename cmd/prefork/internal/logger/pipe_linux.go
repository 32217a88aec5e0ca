package logger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

const fionread = unix.TIOCINQ

// most is how much is spliced at once, the largest pipe of an ordinary user.
const most = 1 << 20

// chooseStep uses splice(2) if the bytes stay as they are, and otherwise tee(2).
func (l *logger) chooseStep() error {
	var st unix.Stat_t
	if err := unix.Fstat(l.in, &st); err != nil {
		return fmt.Errorf("cannot read the input: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		l.step = l.read
		return nil
	}
	if err := unix.Pipe2(l.scratch[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("cannot create a pipe: %w", err)
	}
	if l.canSplice() {
		l.step = l.splice
	} else {
		l.startTee()
	}
	return nil
}

func (l *logger) canSplice() bool {
	return !l.noSplice && len(l.dirs) == 1 && l.dirs[0].format.isPlain() && l.replace == nil
}

// splice is the step that moves bytes from the pipe to the file. The kernel takes
// from the pipe as many as it has written, also if this process is killed.
func (l *logger) splice() (int, error) {
	d := l.dirs[0]
	if !l.canSplice() { // it was configured again
		l.startTee()
		return 0, nil
	}
	n, rotate := most, false
	switch room, limited := d.room(); {
	case d.soon || limited && room <= chunk:
		next, err := l.peek()
		if err != nil {
			return 0, err
		}
		n, rotate = d.cut(next)
	case limited:
		n = int(min(room-chunk, most))
	}
	if l.left >= 0 && n > l.left {
		n, rotate = l.left, false
	}
	moved := 0
	for moved < n {
		m, err := unix.Splice(l.in, nil, d.fd, nil, n-moved, unix.SPLICE_F_NONBLOCK)
		switch {
		case m > 0:
			d.wrote(m)
			moved += int(m)
			if !rotate {
				return moved, nil
			}
		case err == nil:
			return moved, io.EOF
		case err == unix.EINTR:
		case err == unix.EAGAIN, err == unix.EBADF:
			return moved, err
		case err == unix.EINVAL: // the file system has no splice
			l.noSplice = true
			l.startTee()
			return moved, nil
		default:
			d.failed("write", err)
		}
	}
	if rotate {
		d.rotate()
	}
	return moved, nil
}

// peek returns a copy of the next bytes of the pipe, which stay there.
func (l *logger) peek() ([]byte, error) {
	n, err := unix.Tee(l.in, l.scratch[1], chunk, unix.SPLICE_F_NONBLOCK)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	got := l.buf[:n]
	return got, takeAll(l.scratch[0], got)
}

// takeAll reads as many bytes as there is room for, which the pipe has.
func takeAll(pipe int, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Read(pipe, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return err
		case n == 0:
			return errors.New("another process reads from the pipe")
		default:
			buf = buf[n:]
		}
	}
	return nil
}

// startTee has bytes copied, changed and written before they are taken from the
// pipe. Those that a logger was killed with come again.
func (l *logger) startTee() {
	l.step = l.tee
	for _, d := range l.dirs {
		if !d.restarted {
			continue
		}
		d.endLine()
		d.format.line, d.format.began = undecided, false
		d.output((&format{stamp: l.stamp}).append(nil, []byte("-- restarted --\n"), time.Now()))
	}
}

func (l *logger) tee() (int, error) {
	if l.canSplice() { // it was configured again
		l.step = l.splice
		return 0, nil
	}
	in, err := l.peek()
	if err != nil {
		l.held = 0
		return 0, err
	}
	in = l.limit(in)
	if i := bytes.LastIndexByte(in, '\n'); i >= 0 {
		in = in[:i+1] // a chunk that comes again begins with a line
	} else if _, whole := firstLine(in); !whole && !l.midLine && !l.hungUp && l.hasPatterns() && !l.isFull() {
		l.hold(len(in))
		return 0, unix.EAGAIN
	}
	l.held = 0
	l.deliver(in)
	if l.hungUp {
		l.flush()
	}
	return len(in), takeAll(l.in, in)
}

// isFull reports whether the pipe may have no room for the end of a line. A pipe
// counts pieces, which stay apart if they are packets, spliced, or do not fit into a
// page together. A copy fills a pipe of the same size, or a smaller one if more is
// not permitted.
func (l *logger) isFull() bool {
	size, err := unix.FcntlInt(uintptr(l.in), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return true
	}
	if has, err := unix.FcntlInt(uintptr(l.scratch[1]), unix.F_GETPIPE_SZ, 0); err != nil || has != size {
		unix.FcntlInt(uintptr(l.scratch[1]), unix.F_SETPIPE_SZ, size)
	}
	n, err := unix.Tee(l.in, l.scratch[1], chunk, unix.SPLICE_F_NONBLOCK)
	if err != nil {
		return false
	}
	room, err := unix.Poll([]unix.PollFd{{Fd: int32(l.scratch[1]), Events: unix.POLLOUT}}, 0)
	return takeAll(l.scratch[0], l.buf[:n]) != nil || err == nil && room == 0
}

// hold leaves a line in the pipe, and has the logger look at it again, the longer
// it stays as it is the more seldom.
func (l *logger) hold(n int) {
	if n != l.held {
		l.holdFor = time.Millisecond
	} else {
		l.holdFor = min(2*l.holdFor, time.Second)
	}
	l.held = n
}
