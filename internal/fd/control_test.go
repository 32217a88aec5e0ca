//go:build unix

package fd

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A line is a control socket. The manager's end is a bare descriptor, the
// worker's an *os.File, as in the library.
type line struct {
	t    *testing.T
	fd   int
	file *os.File
	conn syscall.RawConn
}

func newLine(t *testing.T) *line {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range pair {
		unix.CloseOnExec(fd)
		unix.SetNonblock(fd, true)
	}
	l := &line{t: t, fd: pair[0], file: os.NewFile(uintptr(pair[1]), "control")}
	l.file.SetReadDeadline(time.Now().Add(30 * time.Second))
	if l.conn, err = l.file.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.close()
		l.file.Close()
	})
	return l
}

func (l *line) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// send writes a message with any number of descriptors.
func (l *line) send(text string, fds ...int) {
	l.t.Helper()
	var oob []byte
	if fds != nil {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(l.fd, []byte(text), oob, nil, 0); err != nil {
		l.t.Fatal(err)
	}
}

// pipes returns n open descriptors.
func pipes(t *testing.T, n int) (fds []int) {
	t.Helper()
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			r.Close()
			w.Close()
		})
		fds = append(fds, int(r.Fd()))
	}
	return fds
}

// same reports whether two descriptors refer to one file.
func same(t *testing.T, a, b int) bool {
	t.Helper()
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)); err != nil {
		t.Fatal(err)
	}
	return x.Ino == y.Ino && x.Dev == y.Dev
}

// Descriptors arrive in the order of their messages, each no later than the
// first byte of its message, however the reads split the messages.
func TestReadControl(t *testing.T) {
	read := pipes(t, 3)
	for size := 1; size < 20; size++ {
		l := newLine(t)
		l.send("plain")
		l.send("Aone", read[0])
		l.send("plain")
		l.send("plain")
		l.send("Atwo", read[1])
		l.send("Athree", read[2])
		l.send("plain")
		l.close()
		var text []byte
		var fds []int
		for {
			buf := make([]byte, size)
			n, some, err := ReadControl(l.conn, buf)
			text, fds = append(text, buf[:n]...), append(fds, some...)
			if begun := bytes.Count(text, []byte("A")); len(fds) != begun {
				t.Fatalf("%d descriptors with %q", len(fds), text)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if string(text) != "plainAoneplainplainAtwoAthreeplain" || len(fds) != 3 {
			t.Fatalf("%q with %d descriptors", text, len(fds))
		}
		for i, fd := range fds {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 || !same(t, fd, read[i]) {
				t.Errorf("descriptor %d: flags %#x, %v", i, flags, err)
			}
			unix.Close(fd)
		}
	}
}

func TestReadControlEnds(t *testing.T) {
	l := newLine(t)
	if n, fds, err := ReadControl(l.conn, nil); n != 0 || fds != nil || err != nil {
		t.Errorf("into an empty buffer: %d, %v, %v", n, fds, err)
	}
	if _, err := l.file.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	l.close() // with unread data: a reset
	for range 2 {
		if n, _, err := ReadControl(l.conn, make([]byte, 10)); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
	}
	l = newLine(t)
	ended := make(chan error)
	go func() {
		_, _, err := ReadControl(l.conn, make([]byte, 10))
		ended <- err
	}()
	l.file.Close()
	if err := <-ended; err == nil || err == io.EOF {
		t.Errorf("closed during a read: %v", err)
	}
}

// If descriptors exceed the buffer or the limit of open files, ReadControl
// leaves none of them open and returns a single -1.
func TestReadControlTruncated(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the behaviour of other kernels is not known")
	}
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	read := pipes(t, 1)
	l := newLine(t)
	before := open()
	l.send("many", slices.Repeat(read, 100)...)
	n, fds, err := ReadControl(l.conn, make([]byte, 10))
	if n != 4 || !slices.Equal(fds, []int{-1}) || err != nil {
		t.Errorf("100 descriptors: %d, %v, %v", n, fds, err)
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors left open", after-before)
	}

	l.send("plain")
	l.send("lost", read...)
	l.send("next", read...)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	// This read splits the message whose descriptor is lost. The next read
	// returns the rest and the next message with its descriptor.
	n, fds, err = ReadControl(l.conn, make([]byte, 7))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if n != 7 || !slices.Equal(fds, []int{-1}) || err != nil {
		t.Errorf("at the limit of open files: %d, %v, %v", n, fds, err)
	}
	n, fds, err = ReadControl(l.conn, make([]byte, 10))
	if n != 6 || len(fds) != 1 || err != nil || !same(t, fds[0], read[0]) {
		t.Fatalf("the rest and the next message: %d, %v, %v", n, fds, err)
	}
	unix.Close(fds[0])
	if after := open(); after != before {
		t.Errorf("%d descriptors left open", after-before)
	}
}

// A message may have several descriptors, in several control messages.
func TestReadControlSeveral(t *testing.T) {
	read := pipes(t, 5)
	l := newLine(t)
	l.send("several", read[:3]...)
	n, fds, err := ReadControl(l.conn, make([]byte, 10))
	if n != 7 || len(fds) != 3 || err != nil {
		t.Fatalf("3 descriptors: %d, %v, %v", n, fds, err)
	}
	for i, fd := range fds {
		if !same(t, fd, read[i]) {
			t.Errorf("descriptor %d is another", i)
		}
		unix.Close(fd)
	}
	// Linux never returns two messages with descriptors at once. Other systems may.
	oob := append(unix.UnixRights(read[0], read[1]), unix.UnixRights(read[2:]...)...)
	if got := descriptors(oob); !slices.Equal(got, read) {
		t.Errorf("two control messages: %v, want %v", got, read)
	}
}
