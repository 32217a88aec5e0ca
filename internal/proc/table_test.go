//go:build unix

package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitCode(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		for _, code := range []int{0, 1, 7, 255} {
			c := o.start(exitProgram, []string{strconv.Itoa(code)})
			if _, _, ok := c.Reap(); ok {
				t.Fatal("reaped before its end")
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
		c := o.start(echoProgram, nil)
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

func TestSignalAfterTheEnd(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start(exitProgram, []string{"0"})
		c.in.Close()
		o.await(Note{c.id, Exited})
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("ended, not reaped: %v", err)
		}
		if status, _, ok := c.Reap(); !ok || !status.Clean() {
			t.Errorf("%v, %v", status, ok)
		}
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("reaped: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read once reaped: %v, want EOF", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write once reaped: %v, want EPIPE", err)
		}
		if status, _, ok := c.Reap(); !ok || !status.Unknown {
			t.Errorf("reaped twice: %v, %v", status, ok)
		}
	})
}

// Whether a core is dumped is for the system to say; the table must say what os/exec says.
func TestCoreDump(t *testing.T) {
	dump := func() []string {
		return []string{"sh", "-c", "ulimit -c unlimited; cd " + t.TempDir() + " && kill -ABRT $$"}
	}
	reference := exec.Command("/bin/sh", dump()[1:]...)
	reference.Run()
	ws := reference.ProcessState.Sys().(syscall.WaitStatus)
	if !ws.CoreDump() {
		t.Skipf("no core dumps here: %v", reference.ProcessState)
	}
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.startSpec(Spec{Path: "/bin/sh", Args: dump()})
		if status := c.reap(); status != (Status{Signal: syscall.SIGABRT, CoreDump: true}) {
			t.Errorf("%v (%+v)", status, status)
		}
	})
}

// relay sends what it reads on its control socket back, in capitals, and at the word "bye" prints "closed" and closes it.
var relayProgram = program("relay", func([]string) {
	control := ctl()
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
})

func TestControl(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start(relayProgram, nil)
		if _, err := c.Read(make([]byte, 1)); err != ErrWouldBlock {
			t.Fatalf("first read: %v", err)
		}
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
		c.expectEnd() // again
		c.in.Close()
		if status := c.reap(); !status.Clean() {
			t.Error(status)
		}
		if n := o.count(Note{c.id, Readable}); n > 0 {
			t.Errorf("%d notes after the end", n)
		}
	})
}

// The kernel reports a peer that died with unread data as a reset, not as an end.
func TestControlEndsByDeath(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start(echoProgram, nil)
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

// scribble writes a byte to its control socket for each byte that it reads, and tells that it has done so.
var scribbleProgram = program("scribble", func([]string) {
	control := ctl()
	for buf := make([]byte, 1); ; {
		if _, err := os.Stdin.Read(buf); err != nil {
			return
		}
		_, err := control.Write(buf)
		check(err)
		fmt.Println("written")
	}
})

func TestReadableComesOnce(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start(scribbleProgram, nil)
		readable := Note{c.id, Readable}
		write := func() {
			c.in.Write([]byte("x"))
			c.expect("written")
		}
		// What the table had to say before this process, it has said when this process has ended.
		barrier := func() {
			b := o.start(exitProgram, []string{"0"})
			b.in.Close()
			b.reap()
		}
		buf := make([]byte, 2)
		for range 3 {
			if _, err := c.Read(buf); err != ErrWouldBlock {
				t.Fatalf("read with nothing there: %v", err)
			}
			write()
			o.await(readable)
			write()
			barrier()
			if n, err := c.Read(buf[:1]); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			write()
			barrier()
			if n := o.count(readable); n > 0 {
				t.Fatalf("%d more notes before ErrWouldBlock", n)
			}
			if n, err := c.Read(buf); n != 2 || err != nil {
				t.Fatal(n, err)
			}
			if _, err := c.Read(buf); err != ErrWouldBlock {
				t.Fatal(err)
			}
		}
		write()
		o.await(readable)
		c.in.Close()
		c.reap()
	})
}

func TestNoControl(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start(exitProgram, []string{"3"}, func(s *Spec) { s.Files, s.Control = s.Files[:3], 0 })
		c.expectEnd()
		c.in.Close()
		if status := c.reap(); status.Code != 3 {
			t.Error(status)
		}
	})
}

// groups prints whether it leads its process group and its session, and whether its group is its parent's.
var groupsProgram = program("groups", func([]string) {
	pgid, err := unix.Getpgid(0)
	check(err)
	sid, err := unix.Getsid(0)
	check(err)
	parents, err := unix.Getpgid(os.Getppid())
	check(err)
	fmt.Println(pgid == os.Getpid(), sid == os.Getpid(), pgid == parents)
})

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
				c := o.start(groupsProgram, nil, func(s *Spec) { s.Attr, s.SameGroup, s.DieWithParent = test.attr, test.same, true })
				c.expect(test.want)
				c.reap()
				if test.attr != nil && !reflect.DeepEqual(*test.attr, before) {
					t.Errorf("the caller's SysProcAttr was changed: %+v", *test.attr)
				}
			})
		})
	}
}

// where prints its working directory.
var whereProgram = program("where", func([]string) {
	dir, err := os.Getwd()
	check(err)
	fmt.Println(dir)
})

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
			c := o.start(whereProgram, nil, func(s *Spec) { s.Dir = dir })
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

// A process can outlive the watch on it, and its handle stays good.
func TestClose(t *testing.T) {
	eachTable(t, func(t *testing.T, o *owner) {
		c := o.start(relayProgram, nil, func(s *Spec) { s.DieWithParent = true })
		for range 2 {
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
		}
		c.Write([]byte("hello\nbye\n"))
		c.expect("closed")
		buf := make([]byte, 100)
		if n, err := c.Read(buf); string(buf[:n]) != "HELLO\n" || err != nil {
			t.Errorf("%q, %v", buf[:n], err)
		}
		c.Signal(syscall.SIGKILL)
		for c.line() != "EOF" {
		}
		for { // no note tells
			if status, _, ok := c.Reap(); ok {
				if status.Signal != syscall.SIGKILL {
					t.Error(status)
				}
				break
			}
			runtime.Gosched()
		}
		if len(o.notes) > 0 {
			t.Errorf("a note after Close: %v", <-o.notes)
		}
	})
}
