//go:build unix

package fd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Only descriptors that are not close-on-exec were there at the start. A number
// that the program has given to another file does not count as open.
func TestTakeStarted(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil { // not close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	raw, _ := Raw(null)
	find := func(all []Started, n int) (found Started) {
		for _, s := range all {
			if s.FD == n {
				found = s
			}
		}
		return found
	}
	all := TakeStarted()
	reading, writing := find(all, pipe[0]), find(all, pipe[1])
	if reading.FD == 0 || writing.FD == 0 || find(all, int(raw)).FD != 0 {
		t.Fatalf("%v has not the ends of the pipe %v alone", all, pipe)
	}
	if flags, err := unix.FcntlInt(uintptr(pipe[0]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %d, %v: the descriptor reaches other processes", flags, err)
	}
	if again := TakeStarted(); find(again, pipe[0]).FD != 0 {
		t.Errorf("%v was taken twice", again)
	}
	if !reading.IsOpen() {
		t.Error("an open descriptor counts as closed")
	}
	if err := unix.Dup2(int(raw), pipe[0]); err != nil {
		t.Fatal(err)
	}
	unix.Close(pipe[1])
	if reading.IsOpen() || writing.IsOpen() {
		t.Error("a replaced or closed descriptor counts as open")
	}
}
