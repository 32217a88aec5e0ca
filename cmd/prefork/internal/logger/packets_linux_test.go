package logger

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// newPipeOf returns a pipe with flags and a size; 0 is the usual one.
func newPipeOf(t *testing.T, flags, size int) *pipe {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|flags); err != nil {
		preforktest.Skipf(t, "no pipe of packets: %v", err)
	}
	p := &pipe{t, os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")}
	t.Cleanup(func() {
		p.r.Close()
		p.w.Close()
	})
	if size > 0 {
		if _, err := unix.FcntlInt(p.w.Fd(), unix.F_SETPIPE_SZ, size); err != nil {
			preforktest.Skipf(t, "the pipe cannot have %d bytes: %v", size, err)
		}
	}
	return p
}

// A line of more pieces than can be copied at once does not stay in the pipe for
// ever. Writers that use splice(2) leave such pieces, too.
func TestLineOfManyPieces(t *testing.T) {
	dir := t.TempDir()
	p := newPipeOf(t, unix.O_DIRECT, 64*os.Getpagesize())
	l := p.open("--", "-no*", dir)
	want := strings.Repeat(".", 40) + "\n"
	for _, c := range want {
		p.print("%c", c)
	}
	for range 100 {
		if _, err := l.step(); err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
	}
	if got := contents(t, dir); got != want {
		t.Errorf("%q", got)
	}
	p.w.Close()
	if err := l.run(); err != nil {
		t.Error(err)
	}
}

// A line that fills the pipe does not stay there: the writer could not end it.
func TestLineThatFillsThePipe(t *testing.T) {
	page := os.Getpagesize()
	for _, row := range []struct {
		name        string
		flags, size int
		pieces      []string
	}{
		{"packets", unix.O_DIRECT, 0, slices.Repeat([]string{"."}, 16)},
		{"few packets", unix.O_DIRECT, 2 * page, []string{"-n", "o"}},
		{"one packet", unix.O_DIRECT, page, []string{"-no"}},
		{"many packets", unix.O_DIRECT, 64 * page, slices.Repeat([]string{"."}, 64)},
		{"one page", 0, page, []string{strings.Repeat("x", page-100) + "\n-n"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			p := newPipeOf(t, row.flags, row.size)
			l := p.open("--", "-no*", dir)
			for _, piece := range row.pieces {
				p.print("%s", piece)
			}
			preforktest.WaitFor(t, "the pipe has room", func() bool {
				if _, err := l.step(); err != nil && err != unix.EAGAIN {
					t.Fatal(err)
				}
				fds := []unix.PollFd{{Fd: int32(p.w.Fd()), Events: unix.POLLOUT}}
				n, _ := unix.Poll(fds, 0)
				return n == 1
			})
			p.print("!\n")
			p.w.Close()
			if err := l.run(); err != nil {
				t.Error(err)
			}
			if got, want := contents(t, dir), strings.Join(row.pieces, "")+"!\n"; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// A line that does not fill the pipe stays there, also if it has many pieces.
func TestLineOfPiecesStays(t *testing.T) {
	dir := t.TempDir()
	p := newPipeOf(t, unix.O_DIRECT, 32*os.Getpagesize())
	l := p.open("--", "-no*", dir)
	for range 31 {
		p.print(".")
		if _, err := l.step(); err != unix.EAGAIN {
			t.Fatal(err)
		}
	}
	if n, err := unix.IoctlGetInt(l.in, fionread); n != 31 || err != nil {
		t.Errorf("the pipe has %d bytes, %v", n, err)
	}
	p.print("\n")
	if _, err := l.step(); err != nil || contents(t, dir) != strings.Repeat(".", 31)+"\n" {
		t.Errorf("%v, %q", err, contents(t, dir))
	}
	l.close()
}

// A file that was processed when its logger was killed is there once, also if
// the next logger has no processor.
func TestKilledAfterProcessing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, nextName("", time.Unix(1, 0))+".s", "A\n")
	write(t, dir, nextName("", time.Unix(1, 0))+".u", "a\n")
	write(t, dir, nextName("", time.Unix(2, 0))+".u", "b\n")
	newProcessing(t, dir).close()
	if got := suffixes(dir); got != ".s.u" {
		t.Errorf("%s", got)
	}
}
