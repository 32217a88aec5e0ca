//go:build unix

package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("fetch", fetchProgram) }

// fetchProgram waits for a byte on its standard input. Then it reads
// messages of nine bytes from its control socket and prints each with the
// content of the descriptor sent with it.
func fetchProgram() {
	os.Stdin.Read(make([]byte, 1))
	for {
		buf, oob := make([]byte, 9), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := unix.Recvmsg(3, buf, oob, 0)
		check(err)
		if n == 0 {
			return
		}
		fmt.Print(string(buf[:n]))
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		check(err)
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			check(err)
			f := os.NewFile(uintptr(fds[0]), "file")
			text, err := io.ReadAll(f)
			check(err)
			f.Close()
			fmt.Printf(" %d %s", len(fds), text)
		}
		fmt.Println()
	}
}

// textFile returns a descriptor from which a text can be read once.
func textFile(t *testing.T, text string) *os.File {
	t.Helper()
	r, w := pipe(t)
	w.WriteString(text)
	w.Close()
	return r
}

func TestWriteFile(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("fetch", nil)
		c.in.Write([]byte("x"))
		plain := func() {
			if n, err := c.Write([]byte("plain    ")); n != 9 || err != nil {
				t.Fatal(n, err)
			}
		}
		for i := range 3 {
			plain()
			r := textFile(t, fmt.Sprint("text ", i))
			if err := c.WriteFile(fmt.Appendf(nil, "message %d", i), int(r.Fd())); err != nil {
				t.Fatal(err)
			}
			r.Close() // the process has a duplicate
			c.expect("plain    ")
			c.expect(fmt.Sprintf("message %d 1 text %d", i, i))
		}
		if err := c.WriteFile([]byte("closed..."), 1<<20); !errors.Is(err, syscall.EBADF) {
			t.Errorf("closed descriptor: %v", err)
		}
		plain()
		c.expect("plain    ")
		c.Signal(syscall.SIGKILL)
		c.reap()
		if err := c.WriteFile([]byte("x"), 0); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("after Reap: %v, want EPIPE", err)
		}
	})
}

// A process that does not read receives each message with its descriptor, or
// neither.
func TestWriteFileFull(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("fetch", nil)
		r := textFile(t, "")
		sent := 0
		for {
			err := c.WriteFile(fmt.Appendf(nil, "%9d", sent), int(r.Fd()))
			if err == ErrWouldBlock {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if sent++; sent > 1_000_000 {
				t.Fatal("the socket is never full")
			}
		}
		if err := c.WriteFile(fmt.Appendf(nil, "%9d", sent), int(r.Fd())); err != ErrWouldBlock {
			t.Errorf("second write to a full socket: %v", err)
		}
		c.in.Write([]byte("x"))
		for i := range sent {
			c.expect(fmt.Sprintf("%9d 1 ", i))
		}
		c.Signal(syscall.SIGKILL)
		c.reap()
	})
}

// The manager does not receive descriptors, so the kernel drops those that a
// process sends.
func TestDescriptorsAreDropped(t *testing.T) {
	ours, theirs, err := controlPair()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ours)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := writeControlFile(theirs, []byte("with it"), int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	unix.Close(theirs)
	buf := make([]byte, 100)
	if n, err := readControl(ours, buf); string(buf[:n]) != "with it" || err != nil {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, err := r.Read(buf); err != io.EOF { // no process has the other end open
		t.Errorf("the pipe: %v", err)
	}
}
