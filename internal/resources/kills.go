package resources

import (
	"bytes"
	"strconv"
	"syscall"
)

// Kills reads how many processes the kernel has killed for lack of memory in
// the cgroup of the workers. The kernel counts them in the cgroup that a
// process's memory is charged to, and does so before it sends the signal. It
// does not matter whether the limit was set on that cgroup, on one above it, or
// by the machine's memory.
//
// The kernel does not name the killed process, so the caller claims one kill
// for each worker that it attributes to the OOM killer. A kill of a process
// that a worker started counts too; it is attributed to the next worker that
// exits by SIGKILL.
//
// The methods are not safe for concurrent use.
type Kills struct {
	file    string // "" if the kernel keeps no counter
	claimed uint64
}

// Kills returns a counter for the cgroup of the workers.
func (s *Settings) Kills() *Kills {
	cgroup := ""
	if s.cgroup != nil {
		cgroup = s.cgroup.Name()
	}
	return NewKills(killsFile(cgroup))
}

// NewKills returns a Kills that reads the counter in file, a memory.events or
// a memory.oom_control. Kills before the call count as claimed. If file is "",
// there are none.
func NewKills(file string) *Kills {
	k := &Kills{file: file}
	k.claimed, _ = k.count()
	return k
}

// Caused reports whether a worker that exited by sig was killed for lack of
// memory: sig is SIGKILL, the manager has not sent it, and the kernel has
// killed more processes than have been claimed. The caller should then call
// Claim. A nil Kills has caused no exit.
func (k *Kills) Caused(sig syscall.Signal, sent bool) bool {
	if k == nil || sig != syscall.SIGKILL || sent {
		return false
	}
	n, ok := k.count()
	if ok && n < k.claimed { // the cgroup was made again, and counts from zero
		k.claimed = 0
	}
	return n > k.claimed
}

// Claim attributes one kill to a worker.
func (k *Kills) Claim() { k.claimed++ }

// count returns the kernel's count, if the file can be read.
func (k *Kills) count() (n uint64, ok bool) {
	if k.file == "" {
		return 0, false
	}
	text, err := readSmall(k.file)
	return killsIn(text), err == nil
}

// readSmall reads a small file of the kernel. The manager calls it between the
// exit of a worker and the next spawn. os.ReadFile would offer the file to
// epoll, which wakes another thread.
func readSmall(file string) ([]byte, error) {
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	text := make([]byte, 1<<10)
	n, err := syscall.Read(fd, text)
	return text[:max(n, 0)], err
}

// killsIn returns the count in text. Both versions of cgroups use the same
// format.
func killsIn(text []byte) (n uint64) {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ = strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return n
}
