//go:build unix

package proc

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
)

// inShared returns the notes to the owner of a part of the shared table.
func inShared(t *testing.T) (Table, <-chan Note) {
	t.Helper()
	notes := make(chan Note, 100)
	table := Share(func(n Note) { notes <- n })
	t.Cleanup(func() { table.Close() })
	return table, notes
}

// Owners that share the table get the notes of their own processes, with their own
// ids, and start and reap processes at the same time.
func TestShare(t *testing.T) {
	var all sync.WaitGroup
	for owner := range 8 {
		table, notes := inShared(t)
		all.Go(func() {
			for i := range 4 {
				id := uint64(i + 1)
				if owner == 0 {
					id = 1<<memberShift - id // the largest
				}
				p, err := table.Start(id, Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit $0", string(rune('0' + owner))}, DieWithParent: true})
				if err != nil {
					t.Error(err)
					return
				}
				if n := <-notes; n != (Note{id, Exited}) {
					t.Errorf("owner %d: %+v of process %d", owner, n, id)
				}
				if status, _, ok := p.Reap(); !ok || status.Code != owner {
					t.Errorf("owner %d: %v, %t", owner, status, ok)
				}
			}
		})
	}
	all.Wait()
}

// A closed part gets no notes and starts nothing; the others go on. The last one
// closes the table, and the next makes another.
func TestShareClose(t *testing.T) {
	start := func(table Table, id uint64) Process {
		t.Helper()
		p, err := table.Start(id, Spec{Path: "/bin/sleep", Args: []string{"sleep", "600"}, DieWithParent: true})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, none := inShared(t)
	two, notes := inShared(t)
	first := start(one, 1)
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if err := one.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if _, err := one.Start(2, Spec{Path: "/bin/true", Args: []string{"true"}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Start after Close: %v", err)
	}
	second := start(two, 1)
	second.Signal(9)
	first.Signal(9) // its handle is valid
	if n := <-notes; n != (Note{1, Exited}) {
		t.Errorf("%+v", n)
	}
	reapAll(t, first, second)
	if len(none) > 0 {
		t.Errorf("a note after Close: %+v", <-none)
	}
	if _, err := two.Start(1<<memberShift, Spec{Path: "/bin/true", Args: []string{"true"}}); err == nil {
		t.Error("an id of another owner was taken")
	}
	two.Close()
	if shared.table != nil || len(shared.members) > 0 {
		t.Errorf("after the last Close: %v, %d members", shared.table, len(shared.members))
	}
	if _, err := two.(*member).Table.Start(1, Spec{Path: "/bin/true", Args: []string{"true"}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the table is open after the last Close: %v", err)
	}
	three, notes := inShared(t)
	third := start(three, 7)
	third.Signal(9)
	if n := <-notes; n != (Note{7, Exited}) {
		t.Errorf("in the next table: %+v", n)
	}
	reapAll(t, third)
}

// reapAll waits until the processes can be reaped.
func reapAll(t *testing.T, all ...Process) {
	for _, p := range all {
		for t.Context().Err() == nil {
			if _, _, ok := p.Reap(); ok {
				break
			}
			runtime.Gosched()
		}
	}
}
