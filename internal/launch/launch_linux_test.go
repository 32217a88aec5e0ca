package launch

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
)

// A limit on the size of files is named.
func TestCellFileSizeLimit(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 10, Max: old.Max}); err != nil {
		t.Skip(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
	if _, _, err := NewCell(); err == nil || !strings.Contains(err.Error(), "RLIMIT_FSIZE is 10") {
		t.Errorf("%v", err)
	}
}

// A process gets the null device for each stream that the program has closed, and
// release closes it.
func TestClosedStream(t *testing.T) {
	stdin, err := fd.Duplicate(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stdin)
	unix.Close(0)
	defer unix.Dup3(stdin, 0, 0)
	cell := open(t) // may get descriptor 0, close-on-exec
	spec, release, err := Worker(Plan{Exe: "/program", Marker: base(), Cell: raw(t, cell)})
	if err != nil {
		t.Fatal(err)
	}
	null := int(spec.Files[0])
	var got, want unix.Stat_t
	if unix.Fstat(null, &got) != nil || unix.Stat(os.DevNull, &want) != nil || got.Rdev != want.Rdev || null == raw(t, cell) {
		t.Errorf("standard input is %d", null)
	}
	if spec.Files[1] != 1 || spec.Files[2] != 2 {
		t.Errorf("streams %v", spec.Files[:3])
	}
	release()
	if _, err := unix.FcntlInt(uintptr(null), unix.F_GETFD, 0); err == nil {
		t.Error("the null device is open after release")
	}
}
