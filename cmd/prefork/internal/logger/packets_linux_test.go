package logger

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// A line of more pieces than can be copied at once does not stay in the pipe for
// ever. Writers that use splice(2) leave such pieces, too.
func TestLineOfManyPieces(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_DIRECT); err != nil {
		preforktest.Skipf(t, "no pipe of packets: %v", err)
	}
	p.r, p.w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	t.Cleanup(func() {
		p.r.Close()
		p.w.Close()
	})
	if _, err := unix.FcntlInt(p.w.Fd(), unix.F_SETPIPE_SZ, 1<<18); err != nil {
		preforktest.Skipf(t, "the pipe cannot have 256 KiB: %v", err)
	}
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
