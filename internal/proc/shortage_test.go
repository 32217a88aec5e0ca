package proc

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// The error of a process that cannot be started names the limit to raise, and
// is still the errno.
func TestShortage(t *testing.T) {
	for _, c := range []struct {
		errno    syscall.Errno
		mend     string
		shortage bool
	}{
		{syscall.EAGAIN, "ulimit -u", true},
		{syscall.EMFILE, "ulimit -n", true},
		{syscall.ENFILE, "fs.file-max", true},
		{syscall.ENOMEM, "", true},
		{syscall.ENOSPC, "", true},
		{syscall.ENOENT, "", false},
		{syscall.EACCES, "", false},
	} {
		before := &os.PathError{Op: "fork/exec", Path: "/bin/x", Err: c.errno}
		err, shortage := Shortage(before)
		if shortage != c.shortage || !errors.Is(err, c.errno) || !strings.HasPrefix(err.Error(), before.Error()) {
			t.Errorf("%v: %v, %t", c.errno, err, shortage)
		}
		if more := strings.TrimPrefix(err.Error(), before.Error()); !strings.Contains(more, c.mend) || (more == "") != (c.mend == "") {
			t.Errorf("%v: %q, want %q", c.errno, err, c.mend)
		}
	}
}
