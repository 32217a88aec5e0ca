package proc

import (
	"fmt"
	"syscall"
	"testing"
)

func TestIsShortage(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {syscall.ENOENT, false}, {syscall.EACCES, false}, {fmt.Errorf("fork: %w", syscall.EAGAIN), true},
		{syscall.ENOMEM, true}, {syscall.EMFILE, true}, {syscall.ENFILE, true}, {syscall.ENOSPC, true},
	} {
		if got := IsShortage(tt.err); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}
