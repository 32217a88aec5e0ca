//go:build unix

package marker

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// newProgram returns a program with these variables in its environment. The
// files become its descriptors from 3 on.
func newProgram(t *testing.T, name string, env []string, files ...*os.File) *preforktest.Program {
	t.Helper()
	p := preforktest.New(t, name)
	p.Cmd.Env = append(p.Cmd.Env, env...)
	p.Cmd.ExtraFiles = files
	return p
}

// output returns all output of the program and its descendants.
func output(p *preforktest.Program) string {
	p.WaitGone()
	return strings.Join(p.Lines(), "\n")
}

// socketpair returns the ends of a control socket, both close-on-exec.
func socketpair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

// sockets returns a socketpair that is closed when the test ends.
func sockets(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	return ours, theirs
}
