//go:build unix

package fd

import (
	"math"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Started is a descriptor with which this process was started, other than its
// standard streams.
type Started struct {
	FD int
	// file is the device and inode: the program may close FD, and another file
	// may get its number.
	file [2]uint64
}

// TakeStarted returns the descriptors with which this process was started, in
// ascending order, and makes them close-on-exec. Descriptors that are
// close-on-exec already were opened later: by Go, or by this library.
func TakeStarted() (all []Started) {
	for _, n := range candidates() {
		flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		if file, ok := identify(n); ok {
			unix.CloseOnExec(n)
			all = append(all, Started{FD: n, file: file})
		}
	}
	slices.SortFunc(all, func(a, b Started) int { return a.FD - b.FD })
	return all
}

// Limit returns the number below which this process may have descriptors.
func Limit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}

// candidates returns the numbers of all descriptors above the standard streams.
// If the system does not list them, it returns those of usual limits.
func candidates() (all []int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		for n := first; n < 1024; n++ {
			all = append(all, n)
		}
		return all
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= first {
			all = append(all, n)
		}
	}
	return all
}

func identify(n int) (file [2]uint64, ok bool) {
	var st unix.Stat_t
	err := unix.Fstat(n, &st)
	return [2]uint64{uint64(st.Dev), uint64(st.Ino)}, err == nil
}

// Same reports whether two descriptors are of the same file or socket. Sockets of
// systems that do not number them are never the same.
func Same(a, b int) bool {
	fileA, okA := identify(a)
	fileB, okB := identify(b)
	return okA && okB && fileA == fileB && fileA[1] != 0
}

// IsOpen reports whether the program has left the descriptor open.
func (s Started) IsOpen() bool {
	file, ok := identify(s.FD)
	return ok && file == s.file
}
