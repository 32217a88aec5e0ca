package resources

import (
	"bytes"
	"strconv"
	"syscall"
)

// Kills counts what the kernel has killed for want of memory in the cgroup of the workers. The kernel tells it by a counter of the
// cgroup to which the memory of a process is charged, raised before the signal is sent. (Whose limit it was, that
// cgroup's, that of one above it, or the machine's, makes no difference.) It belongs to one goroutine.
type Kills struct {
	file string // "" where nobody counts
	seen uint64 // those that have been told of
}

// Kills begins to count. Manager.
func (s *Settings) Kills() *Kills {
	cgroup := ""
	if s.cgroup != nil {
		cgroup = s.cgroup.Name()
	}
	k := &Kills{file: killsFile(cgroup)}
	k.seen = k.count()
	return k
}

// Next tells whether there is one more kill than it has told of. A process that a worker has started counts, too: then the next
// worker that ends by a SIGKILL is taken for the one that was meant.
func (k *Kills) Next() bool {
	if k == nil || k.count() <= k.seen {
		return false
	}
	k.seen++
	return true
}

func (k *Kills) count() (n uint64) {
	if k.file == "" {
		return 0
	}
	text, err := readAtOnce(k.file)
	if err != nil {
		return 0
	}
	return killsIn(text)
}

// readAtOnce reads a small file of the kernel's. It is asked for between a death and the next start: os.ReadFile would offer the
// file to epoll, which wakes another thread for it.
func readAtOnce(file string) ([]byte, error) {
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	text := make([]byte, 1<<10)
	n, err := syscall.Read(fd, text)
	return text[:max(n, 0)], err
}

// killsIn finds the count in the file of a cgroup of either version, which write it alike.
func killsIn(text []byte) (n uint64) {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ = strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return n
}
