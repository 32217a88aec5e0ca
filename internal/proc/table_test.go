//go:build unix

package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func TestExitCode(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		for _, code := range []int{0, 1, 7, 255} {
			c := o.start("exit", []string{strconv.Itoa(code)})
			if _, _, ok := c.Reap(); ok {
				t.Fatal("reaped before its exit")
			}
			c.in.Close()
			if status := c.reap(); status != (Status{Code: code}) || status.Clean() != (code == 0) {
				t.Errorf("%v (%+v), want exit code %d", status, status, code)
			}
		}
	})
}

func TestSignals(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("echo", nil)
		c.expect("up")
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		c.expect("TERM")
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if status := c.reap(); status != (Status{Signal: syscall.SIGKILL}) {
			t.Errorf("%v (%+v), want SIGKILL", status, status)
		}
	})
}

func TestSignalAfterExit(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("exit", []string{"0"})
		c.in.Close()
		o.await(Note{c.id, Exited})
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("exited, not reaped: %v", err)
		}
		if status, _, ok := c.Reap(); !ok || !status.Clean() {
			t.Errorf("%v, %v", status, ok)
		}
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("reaped: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read after Reap: %v, want EOF", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after Reap: %v, want EPIPE", err)
		}
		if status, _, ok := c.Reap(); !ok || !status.Unknown {
			t.Errorf("reaped twice: %v, %v", status, ok)
		}
	})
}

// The system decides whether a core is dumped. The table must report the same
// as os/exec.
func TestCoreDump(t *testing.T) {
	dump := func() []string {
		return []string{"sh", "-c", "ulimit -c unlimited; cd " + t.TempDir() + " && kill -ABRT $$"}
	}
	reference := exec.Command("/bin/sh", dump()[1:]...)
	reference.Run()
	ws := reference.ProcessState.Sys().(syscall.WaitStatus)
	if !ws.CoreDump() {
		t.Skipf("no core dumps on this system: %v", reference.ProcessState)
	}
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.startSpec(Spec{Path: "/bin/sh", Args: dump()})
		if status := c.reap(); status != (Status{Signal: syscall.SIGABRT, CoreDump: true}) {
			t.Errorf("%v (%+v)", status, status)
		}
	})
}

func init() { preforktest.Register("relay", relayProgram) }

// relayProgram sends each line of its control socket back in upper case.
// After the line "bye" it closes the socket and prints "closed".
func relayProgram() {
	control := controlEnd()
	lines := bufio.NewReader(control)
	for {
		s, err := lines.ReadString('\n')
		check(err)
		if s == "bye\n" {
			control.Close()
			fmt.Println("closed")
			io.Copy(io.Discard, os.Stdin)
			return
		}
		_, err = control.WriteString(strings.ToUpper(s))
		check(err)
	}
}

func TestControl(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("relay", nil)
		c.expectWouldBlock()
		for _, word := range []string{"one\n", "two\n", "three\n"} {
			if n, err := c.Write([]byte(word)); n != len(word) || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
			if got, err := c.readControl(len(word)); got != strings.ToUpper(word) || err != nil {
				t.Fatalf("read: %q, %v; want %q", got, err, strings.ToUpper(word))
			}
		}
		c.Write([]byte("bye\n"))
		c.expectEnd()
		c.expect("closed")
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write past the end: %v, want EPIPE", err)
		}
		c.expectEnd() // a second time
		c.in.Close()
		status := c.reap()
		if n := o.count(Note{c.id, Readable}); n > 0 || !status.Clean() {
			t.Errorf("%v; %d notes after EOF", status, n)
		}
	})
}

// The kernel reports ECONNRESET and not the end of the socket if the peer died
// with unread data.
func TestControlReset(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("echo", nil)
		c.expect("up")
		var err error
		for buf := make([]byte, 1<<16); err == nil; {
			_, err = c.Write(buf)
		}
		if err != ErrWouldBlock {
			t.Errorf("write to a full socket: %v", err)
		}
		c.Signal(syscall.SIGKILL)
		c.expectEnd()
		c.reap()
	})
}

// A program that traps SIGPIPE receives none from a write to a control socket
// whose process has closed its end.
func TestNoSigpipe(t *testing.T) {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGPIPE, syscall.SIGWINCH)
	defer signal.Stop(signals)
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("relay", nil)
		c.Write([]byte("bye\n"))
		c.expect("closed")
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write: %v, want EPIPE", err)
		}
		if err := c.WriteFile([]byte("x"), 0); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write of a descriptor: %v, want EPIPE", err)
		}
		// The Go runtime delivers pending signals in the order of their
		// numbers, so a SIGPIPE would arrive before this signal.
		if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
			t.Fatal(err)
		}
		for sig := <-signals; sig != syscall.SIGWINCH; sig = <-signals {
			t.Errorf("received %v", sig)
		}
		c.in.Close()
		c.reap()
	})
}

func init() { preforktest.Register("report", reportProgram) }

// reportProgram writes to its control socket and exits.
func reportProgram() {
	for range 3 {
		_, err := controlEnd().WriteString("message\n")
		check(err)
	}
}

// Data that a process sent before it exited can be read until Reap, even if the
// owner did not wait for a Readable note.
func TestReadAfterExit(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("report", nil)
		o.await(Note{c.id, Exited})
		c.expectRead("message\n", 8)
		c.expectRead("message\nmessage\n", 100)
		c.expectEnd()
		if status, _, ok := c.Reap(); !ok || !status.Clean() {
			t.Errorf("%v, %v", status, ok)
		}
	})
}

func init() { preforktest.Register("scribble", scribbleProgram) }

// scribbleProgram writes a byte to its control socket for each byte that
// it reads, and then prints "written".
func scribbleProgram() {
	control := controlEnd()
	for buf := make([]byte, 1); ; {
		if _, err := os.Stdin.Read(buf); err != nil {
			return
		}
		_, err := control.Write(buf)
		check(err)
		fmt.Println("written")
	}
}

func TestReadableOnce(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("scribble", nil)
		readable := Note{c.id, Readable}
		write := func() {
			c.in.Write([]byte("x"))
			c.expect("written")
		}
		// When this process has been reaped, the table has sent all earlier
		// notes.
		barrier := func() {
			b := o.start("exit", []string{"0"})
			b.in.Close()
			b.reap()
		}
		for range 3 {
			c.expectWouldBlock()
			write()
			o.await(readable)
			write()
			barrier()
			c.expectRead("x", 1)
			write()
			barrier()
			if n := o.count(readable); n > 0 {
				t.Fatalf("%d more notes before ErrWouldBlock", n)
			}
			c.expectRead("xx", 2)
			c.expectWouldBlock()
		}
		write()
		o.await(readable)
		c.in.Close()
		c.reap()
	})
}

func TestNoControl(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("exit", []string{"3"}, func(s *Spec) { s.Files, s.Control = s.Files[:3], 0 })
		c.expectEnd()
		c.in.Close()
		if status := c.reap(); status.Code != 3 {
			t.Error(status)
		}
	})
}

func init() { preforktest.Register("groups", groupsProgram) }

// groupsProgram prints whether it leads its process group and its session,
// and whether it is in the group of its parent.
func groupsProgram() {
	pgid, err := unix.Getpgid(0)
	check(err)
	sid, err := unix.Getsid(0)
	check(err)
	parents, err := unix.Getpgid(os.Getppid())
	check(err)
	fmt.Println(pgid == os.Getpid(), sid == os.Getpid(), pgid == parents)
}

func TestProcessGroup(t *testing.T) {
	for _, test := range []struct {
		name string
		attr *syscall.SysProcAttr
		same bool
		want string
	}{
		{"default", nil, false, "true false false"},
		{"empty", &syscall.SysProcAttr{}, false, "true false false"},
		{"setpgid", &syscall.SysProcAttr{Setpgid: true}, false, "true false false"},
		{"setsid", &syscall.SysProcAttr{Setsid: true}, false, "true true false"},
		{"same", nil, true, "false false true"},
		{"same, empty", &syscall.SysProcAttr{}, true, "false false true"},
		{"same, setpgid", &syscall.SysProcAttr{Setpgid: true}, true, "true false false"},
		{"same, setsid", &syscall.SysProcAttr{Setsid: true}, true, "true true false"},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachTable(t, func(t *testing.T, o *owner) {
				var before syscall.SysProcAttr
				if test.attr != nil {
					before = *test.attr
				}
				c := o.start("groups", nil, func(s *Spec) { s.Attr, s.SameGroup, s.DieWithParent = test.attr, test.same, true })
				c.expect(test.want)
				c.reap()
				if test.attr != nil && !reflect.DeepEqual(*test.attr, before) {
					t.Errorf("the caller's SysProcAttr was changed: %+v", *test.attr)
				}
			})
		})
	}
}

func init() { preforktest.Register("pwd", pwdProgram) }

// pwdProgram prints its working directory.
func pwdProgram() {
	dir, err := os.Getwd()
	check(err)
	fmt.Println(dir)
}

func TestDir(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	there, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	eachTable(t, func(t *testing.T, o *owner) {
		for dir, want := range map[string]string{"": here, there: there} {
			c := o.start("pwd", nil, func(s *Spec) { s.Dir = dir })
			c.expect(want)
			c.reap()
		}
	})
}

func TestStartErrors(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notExecutable, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []uintptr{0, 1, 2, 0}
	eachTable(t, func(t *testing.T, o *owner) {
		for _, test := range []struct {
			spec Spec
			want error
			text string
		}{
			{Spec{Path: "/nonexistent", Files: files, Control: 3}, syscall.ENOENT, "fork/exec /nonexistent: no such file"},
			{Spec{Path: "/nonexistent", Files: files, Control: 3, DieWithParent: true}, os.ErrNotExist, "fork/exec"},
			{Spec{Path: notExecutable, Files: files, Control: 3}, syscall.EACCES, "fork/exec " + notExecutable},
			{Spec{Path: "/bin/sh", Files: files, Control: 4}, syscall.EINVAL, "control socket"},
			{Spec{Path: "/bin/sh", Files: files, Dir: "/nonexistent"}, syscall.ENOENT, "stat /nonexistent: no such file"},
			{Spec{Path: "/nonexistent", Files: files, Dir: "/"}, syscall.ENOENT, "fork/exec /nonexistent: no such file"},
		} {
			p, err := o.Start(1, test.spec)
			if p != nil || !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, %v; want %v with %q", p, err, test.want, test.text)
			}
		}
		o.Close()
		if _, err := o.Start(1, Spec{Path: "/bin/sh"}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("start after Close: %v", err)
		}
	})
}

// The handle of a process remains valid after Close.
func TestClose(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start("relay", nil, func(s *Spec) { s.DieWithParent = true })
		for range 2 {
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
		}
		c.Write([]byte("hello\nbye\n"))
		c.expect("closed")
		c.expectRead("HELLO\n", 100)
		c.Signal(syscall.SIGKILL)
		for c.line() != "EOF" {
		}
		status, _, ok := c.Reap()
		for ; !ok; status, _, ok = c.Reap() { // Close has ended the notes
			runtime.Gosched()
		}
		if status.Signal != syscall.SIGKILL {
			t.Error(status)
		}
		if len(o.notes) > 0 {
			t.Errorf("note after Close: %v", <-o.notes)
		}
	})
}
