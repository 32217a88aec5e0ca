//go:build unix

package launch

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// startedWith is what New finds in a process that was started with the null
// device at each of these numbers.
func startedWith(t *testing.T, numbers ...int) (all []fd.Started) {
	t.Helper()
	for _, n := range numbers {
		if err := unix.Dup2(raw(t, open(t)), n); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { syscall.Close(n) })
	}
	for _, s := range fd.TakeStarted() {
		for _, n := range numbers {
			if s.FD == n {
				all = append(all, s)
			}
		}
	}
	if len(all) != len(numbers) {
		t.Fatalf("%v, want %v", all, numbers)
	}
	return all
}

// Numbers near RLIMIT_NOFILE are left free too, but the library's own come below
// them: there is no room above.
func TestStartedNearLimit(t *testing.T) {
	started := startedWith(t, 60, 90, 120)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	now := was
	now.Cur = 128
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)
	socket := open(t)
	plan := Plan{Exe: "/program", Args: []string{"/bin/sh"}, Marker: base(), Started: started, Cell: raw(t, socket)}
	for _, c := range []struct{ sockets, passed, above, end int }{{0, 0, 90, 95}, {5, 0, 90, 100}, {25, 0, 60, 120}, {0, 40, 0, 120}, {60, 0, 0, 120}} {
		plan.Sockets, plan.Passed = nil, make([]marker.File, c.passed)
		for range c.sockets {
			plan.Sockets = append(plan.Sockets, marker.Socket{FD: raw(t, socket), Network: "tcp", Address: ":80", Slot: marker.Shared})
		}
		worker, release, err := Worker(plan)
		if err != nil {
			t.Fatal(err)
		}
		release()
		if worker.Control <= c.above || len(worker.Files) > c.end {
			t.Errorf("%d sockets: control at %d, %d descriptors", c.sockets, worker.Control, len(worker.Files))
		}
		for n, from := range worker.Files[3:] {
			if n += 3; (n == 60 || n == 90 || n == 120) && from != closed {
				t.Errorf("%d sockets: a worker gets %d at %d", c.sockets, from, n)
			}
		}
		successor, release, err := Successor(plan)
		if err != nil {
			t.Fatal(err)
		}
		release()
		if successor.Files[60] != 60 || successor.Files[90] != 90 || successor.Files[120] != 120 || len(successor.Files) != 121 {
			t.Errorf("%d sockets: %d descriptors, at 60: %d, at 90: %d, at 120: %d", c.sockets, len(successor.Files), successor.Files[60], successor.Files[90], successor.Files[120])
		}
	}
}

// The descriptors of this process's start go to a successor at the same numbers,
// and to no other process. The library's own come above them, except above very
// high ones. A closed one leaves its number to no other file.
func TestStarted(t *testing.T) {
	started := startedWith(t, 60, 75, 2000)
	syscall.Close(75)
	socket := open(t)
	plan := Plan{
		Exe: "/program", Args: []string{"/bin/sh"}, Marker: base(), Started: started, Cell: raw(t, socket),
		Sockets: []marker.Socket{{FD: raw(t, socket), Network: "tcp", Address: ":80", Slot: marker.Shared}},
	}
	command, release, err := Command(plan)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if len(command.Files) != 3 {
		t.Errorf("a Command gets %v", command.Files)
	}
	worker, release, err := Worker(plan)
	if err != nil {
		t.Fatal(err)
	}
	release()
	for n, from := range worker.Files[3:] {
		if n += 3; n <= 75 && from != closed || from == 60 || from == 2000 {
			t.Errorf("a worker gets %d at %d", from, n)
		}
	}
	plan.Sockets[0].Slot = 0
	for len(plan.Sockets) < 3000 { // on both sides of 2000
		plan.Sockets = append(plan.Sockets, plan.Sockets[0])
	}
	successor, release, err := Successor(plan)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if successor.Files[60] != 60 || successor.Files[2000] != 2000 || successor.Control <= 75 {
		t.Errorf("at 60: %d, at 2000: %d, control at %d", successor.Files[60], successor.Files[2000], successor.Control)
	}
	var got, null syscall.Stat_t
	if syscall.Fstat(int(successor.Files[75]), &got) != nil || syscall.Stat(os.DevNull, &null) != nil || got.Rdev != null.Rdev {
		t.Errorf("at 75, which is closed: %d", successor.Files[75])
	}
	// The marker of so many sockets travels in a file, which comes last.
	text, err := fd.ReadBlob(int(successor.Files[len(successor.Files)-1]))
	if err != nil {
		t.Fatal(err)
	}
	m, err := marker.ParseSuccessor(string(text))
	if err != nil || len(m.Sockets) != 3000 {
		t.Fatal(len(m.Sockets), err)
	}
	for _, s := range m.Sockets {
		if successor.Files[s.FD] != uintptr(raw(t, socket)) {
			t.Fatalf("at %d: %d", s.FD, successor.Files[s.FD])
		}
	}
}
