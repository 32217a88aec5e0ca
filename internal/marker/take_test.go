//go:build unix

package marker

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("take", takeProgram) }

// takeProgram prints the result of Take, and the state of the environment and of
// the descriptors that the marker may name.
func takeProgram() {
	m, role, err := Take()
	fmt.Printf("role %d, name %q, control %d, exe %d, sockets %v, error %v\n", role, m.Name, m.Control, m.Exe, m.Sockets, err)
	_, worker := os.LookupEnv(Env)
	_, successor := os.LookupEnv(SuccessorEnv)
	fmt.Printf("variables %t %t\n", worker, successor)
	for fd := 3; fd <= 5; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			fmt.Printf("%d: %v\n", fd, err)
			continue
		}
		fmt.Printf("%d: close-on-exec %t, non-blocking %t\n", fd, flags&unix.FD_CLOEXEC != 0, status&unix.O_NONBLOCK != 0)
	}
}

// aMarker returns the marker of a process with its control socket at descriptor
// 3, a socket at 4, and the file of its program at 5.
func aMarker(manager int) Marker {
	return Marker{Manager: manager, Name: "web", Generation: 1, Ordinal: 1, Stop: 15, Control: 3, Exe: 5, Sockets: []Socket{{4, "tcp", ":80", Shared, true, 0}}}
}

const (
	adopted = `3: close-on-exec true, non-blocking true
4: close-on-exec true, non-blocking false
5: bad file descriptor`
	untouched = `3: close-on-exec false, non-blocking false
4: close-on-exec false, non-blocking false
5: close-on-exec false, non-blocking false`
)

func TestTake(t *testing.T) {
	mine, another := aMarker(os.Getpid()).String(), aMarker(os.Getpid()+1).String()
	const ordinary = `role 0, name "", control 0, exe 0, sockets [], error <nil>`
	for _, tt := range []struct {
		name  string
		env   []string
		gone  bool // the manager has closed its end of the socket
		first string
		then  string // the state of the descriptors
	}{
		{"none", nil, false, ordinary, untouched},
		{"worker", []string{Env + "=" + mine}, false, `role 1, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true 0}], error <nil>`, adopted},
		{"successor", []string{SuccessorEnv + "=" + mine}, false, `role 2, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true 0}], error <nil>`, adopted},
		{"successor whose manager is exiting", []string{SuccessorEnv + "=" + mine}, true, `role 2, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true 0}], error <nil>`, adopted},
		{"successor of another", []string{SuccessorEnv + "=" + another}, false, ordinary, untouched},
		{"successor of one that is gone", []string{SuccessorEnv + "=" + another}, true, `role 2, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true 0}], error <nil>`, adopted},
		{"damaged successor", []string{SuccessorEnv + "=" + mine[:len(mine)-1]}, false, `role 3, name "", control 0, exe 0, sockets [], error ` + SuccessorEnv + `="`, untouched},
		{"successor with another value", []string{SuccessorEnv + "=1"}, false, `role 3, name "", control 0, exe 0, sockets [], error ` + SuccessorEnv + `="1": not a value`, untouched},
		{"worker and successor", []string{SuccessorEnv + "=" + mine, Env + "=" + mine}, false, `role 1, `, adopted},
		{"damaged worker and successor", []string{SuccessorEnv + "=" + mine, Env + "=1"}, false, `role 3, name "", control 0, exe 0, sockets [], error ` + Env + "=", untouched},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := sockets(t)
			if tt.gone {
				unix.Shutdown(int(ours.Fd()), unix.SHUT_RDWR)
			}
			_, other := sockets(t) // it does not share the blocking mode of the first
			p := newProgram(t, "take", tt.env, theirs, other, other).Start()
			first, rest, _ := strings.Cut(output(p), "\n")
			if !strings.HasPrefix(first, tt.first) {
				t.Errorf("%s, want %s", first, tt.first)
			}
			if want := "variables false false\n" + tt.then; rest != want {
				t.Errorf("then\n%s\nwant\n%s", rest, want)
			}
		})
	}
}

// If a process such as a shell or sudo is between manager and successor, the
// marker is for that process.
func TestSuccessorBehindAnother(t *testing.T) {
	_, control := sockets(t)
	_, other := sockets(t)
	env := []string{SuccessorEnv + "=" + aMarker(os.Getpid()).String()}
	p := newProgram(t, "take", env, control, other, other)
	p.Cmd.Path, p.Cmd.Args = "/bin/sh", []string{"sh", "-c", `"$0"; exit $?`, p.Cmd.Path}
	if got := output(p.Start()); !strings.HasPrefix(got, "role 0, ") || !strings.HasSuffix(got, untouched) {
		t.Errorf("%s", got)
	}
}

// A descriptor that the marker names must be open, for any purpose.
func TestTakeMissing(t *testing.T) {
	_, control := sockets(t)
	m := aMarker(os.Getpid())
	m.Exe = 50 // the Go runtime may use the next numbers
	for name, role := range map[string]string{Env: "worker", SuccessorEnv: "successor"} {
		t.Run(role, func(t *testing.T) {
			p := newProgram(t, "take", []string{name + "=" + m.String()}, control, control).Start()
			if got, want := output(p), "error "+name+" names descriptor 50, which is not open"; !strings.HasPrefix(got, "role 3, ") || !strings.Contains(got, want) {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// If the program's file was not inherited, Take does not close the descriptor that
// has its number, such as the one of the runtime's poller.
func TestTakeWithoutBinary(t *testing.T) {
	_, control := sockets(t)
	_, other := sockets(t)
	got, role, err := adopt(Marker{Control: int(control.Fd()), Exe: int(other.Fd())}, Env, Worker)
	if got.Exe != 0 || role != Worker || err != nil {
		t.Errorf("%+v, %v, %v", got, role, err)
	}
	if _, err := unix.FcntlInt(other.Fd(), unix.F_GETFD, 0); err != nil {
		t.Error(err)
	}
}

// writeFile returns a file with this content.
func writeFile(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "marker")
	if err == nil {
		t.Cleanup(func() { f.Close() })
		_, err = f.WriteString(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A long marker is in a file, which Take closes. A file that no manager has
// written is an error.
func TestTakeLong(t *testing.T) {
	long := aMarker(os.Getpid())
	for i := range 5000 {
		long.Resources += strconv.Itoa(i) + "|"
	}
	for _, tt := range []struct{ name, text, want string }{
		{"long", long.String(), `role 1, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true 0}], error <nil>`},
		{"altered", long.String() + "1", `role 3, name "", control 0, exe 0, sockets [], error ` + Env + `="v`},
		{"of another manager", aMarker(os.Getpid() + 1).String(), `role 3, name "", control 0, exe 0, sockets [], error ` + Env + ` names descriptor 6, which has the marker of another`},
		{"in another file again", InFile(os.Getpid(), 7), `role 3, name "", control 0, exe 0, sockets [], error ` + Env + ` names descriptor 6, which has the marker of another`},
		{"empty", "", `role 3, name "", control 0, exe 0, sockets [], error ` + Env + `="": not a value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, control := sockets(t)
			_, other := sockets(t)
			p := newProgram(t, "take", []string{Env + "=" + InFile(os.Getpid(), 6)}, control, other, other, writeFile(t, tt.text)).Start()
			if got := output(p); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	_, control := sockets(t)
	p := newProgram(t, "take", []string{Env + "=" + InFile(os.Getpid(), 3)}, control).Start()
	if got, want := output(p), Env+" names descriptor 3, which has no marker: invalid argument"; !strings.Contains(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
}
