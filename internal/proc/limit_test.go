//go:build unix

package proc

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// A start that fails for want of descriptor numbers says so. Another bad
// descriptor is not mistaken for that.
func TestDescriptorsAboveLimit(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	now := was
	now.Cur = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)
	table := New(func(Note) {})
	defer table.Close()
	for n, explained := range map[int]bool{5: false, 80: true} {
		files := []uintptr{0, 1, 2}
		for len(files) < n {
			files = append(files, ^uintptr(0))
		}
		if files = append(files, 1); !explained {
			files[3] = 63 // it is closed
		}
		_, err := table.Start(1, Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "exit"}, Files: files})
		if !errors.Is(err, syscall.EBADF) || strings.Contains(err.Error(), "RLIMIT_NOFILE, which is 64") != explained {
			t.Errorf("%d descriptors: %v", n, err)
		}
	}
}
