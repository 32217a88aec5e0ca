package inherit

import (
	"fmt"
	"os"
	"testing"
)

// ondisk tells where it is found again, before and after its file is deleted.
var onDiskProgram = program("ondisk", func(args []string) {
	for range 2 {
		fmt.Println(OnDisk(args[0], "/"))
		os.Remove(args[0])
	}
})

func TestOnDiskDeleted(t *testing.T) {
	path := copied(t)
	p := start(t, path, onDiskProgram, []string{path}, nil)
	if got, want := p.text(), path+" <nil>\n"+path+" <nil>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A Binary starts the file that was opened, whatever has become of its name; in the new process it is closed.
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
	for _, tt := range []struct {
		name   string
		make   func(testing.TB) string
		change func(t *testing.T, path string)
	}{
		{"unchanged", copied, func(*testing.T, string) {}},
		{"deleted", copied, remove},
		{"replaced", copied, replace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.make(t)
			b, err := OpenBinary(path)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			tt.change(t, path)
			_, control := sockets(t)
			_, other := sockets(t)
			for _, role := range []string{Env, SuccessorEnv} { // more than once
				m := aMarker(os.Getpid())
				p := start(t, b.StartPath(m.Exe), takeProgram, nil, []string{role + "=" + m.String()}, control, other, b.FD())
				p.in.Close()
				first := `role 1, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true}], error <nil>`
				if role == SuccessorEnv {
					first = `role 2` + first[len("role 1"):]
				}
				if got, want := p.text(), first+"\nvariables false false\n"+adopted; got != want {
					t.Errorf("%s\nwant\n%s", got, want)
				}
			}
		})
	}
}

// The file that a process was started from is seen there by its name, whatever it was started by.
func TestStartedBinaryIsItself(t *testing.T) {
	path := copied(t)
	b, err := OpenBinary(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := start(t, b.StartPath(3), waitProgram, nil, nil, b.FD())
	p.expect("up")
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)); exe != path || err != nil {
		t.Errorf("%s, %v; want %s", exe, err, path)
	}
}
