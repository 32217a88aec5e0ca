package binary

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// SetName names the calling thread, and printName runs in the first goroutine, so
// that must stay on the first thread, as it does in the initialization of packages.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	preforktest.Main(m, map[string]func(){"ondisk": printOnDisk, "wait": printName})
}

// printOnDisk prints OnDisk before and after the program's file is deleted.
func printOnDisk() {
	for range 2 {
		fmt.Println(OnDisk(os.Args[1], "/"))
		os.Remove(os.Args[1])
	}
}

// printName prints the name that ps shows and waits for the end of its standard
// input.
func printName() {
	SetName(os.Args[0])
	name, err := os.ReadFile("/proc/self/comm")
	fmt.Printf("up as %s %v\n", bytes.TrimSpace(name), err)
	io.Copy(io.Discard, os.Stdin)
}

// start starts a file as one of the programs, with argv[0] "dir/prog", and with
// the descriptor fd at 3 unless it is -1. stop ends the standard input of the
// program.
func start(t *testing.T, path, program string, fd int, args ...string) (p *preforktest.Program, stop func()) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p = preforktest.New(t, program, args...)
	p.Cmd.Path, p.Cmd.Args[0], p.Cmd.Stdin = path, "dir/prog", in
	if fd >= 0 {
		dup, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			t.Fatal(err)
		}
		defer dup.Close()
		p.Cmd.ExtraFiles = []*os.File{dup}
	}
	p.Start()
	in.Close()
	t.Cleanup(func() { out.Close() })
	return p, func() {
		out.Close()
		p.WaitGone()
	}
}

func TestOnDiskDeleted(t *testing.T) {
	path := copied(t)
	p, _ := start(t, path, "ondisk", -1, path)
	for range 2 {
		p.Expect("^" + path + " <nil>$")
	}
}

// A Binary starts the file that was opened, even if its name was given to another
// file, and more than once.
func TestStartBinary(t *testing.T) {
	replace := func(t *testing.T, path string) {
		if err := os.Rename(written(t, "wrong", []byte("#!/bin/sh\necho wrong"), 0o755), path); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(t *testing.T, path string){
		"unchanged": func(*testing.T, string) {}, "deleted": remove, "replaced": replace,
	} {
		t.Run(name, func(t *testing.T) {
			path := copied(t)
			b, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			change(t, path)
			for range 2 {
				p, stop := start(t, b.StartPath(3), "wait", b.FD())
				p.Expect("^up as prog <nil>$")
				if !Runs(p.PID(), b) || Runs(p.PID(), nil) {
					t.Error("the process does not run the file that was opened")
				}
				stop()
			}
		})
	}
}

// A process that a Binary has started has the file's name as its executable.
func TestStartedBinaryIsItself(t *testing.T) {
	path := copied(t)
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p, _ := start(t, b.StartPath(3), "wait", b.FD())
	p.Expect("^up")
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID())); exe != path || err != nil {
		t.Errorf("%s, %v; want %s", exe, err, path)
	}
}

func TestExecutable(t *testing.T) {
	exe, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	if path, err := filepath.EvalSymlinks(exe); path != self(t) || err != nil {
		t.Errorf("%s is %s, %v; want %s", exe, path, err, self(t))
	}
}

// Runs compares with the program of this process and with one other file.
func TestRuns(t *testing.T) {
	another := copied(t)
	b, err := Open(another)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, tt := range []struct {
		path  string
		other *Binary
		want  bool
	}{
		{self(t), nil, true},
		{self(t), b, true}, // the manager's program, whose next version b is
		{another, nil, false},
		{another, b, true},
	} {
		p, stop := start(t, tt.path, "wait", -1)
		p.Expect("^up")
		pid := p.PID()
		if got := Runs(pid, tt.other); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
		stop()
		if Runs(pid, tt.other) {
			t.Errorf("%+v: still true after its end", tt)
		}
	}
}
