package supervise_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/ops/supervise"
)

// A process that is being started has the descriptor of the lock until its exec.
// Close releases the lock all the same.
func TestLockInChild(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	copies := 0
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.HasSuffix(link, dir+"/supervise/lock") {
			n, _ := strconv.Atoi(fd.Name())
			dup, err := syscall.Dup(n)
			must(t, err)
			defer syscall.Close(dup)
			copies++
		}
	}
	if copies != 1 {
		t.Fatalf("%d descriptors of the lock", copies)
	}
	must(t, d.Close())
	open(t, dir)
}

// A Dir needs no thread, and four descriptors.
func TestThreads(t *testing.T) {
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		must(t, err)
		return len(entries)
	}
	base := t.TempDir()
	const n = 50
	threads, files := count("/proc/self/task"), count("/proc/self/fd")
	got := make(chan byte)
	for i := range n {
		dir := base + "/" + string(rune('A'+i))
		must(t, os.Mkdir(dir, 0o700))
		d, err := supervise.Open(dir)
		must(t, err)
		t.Cleanup(func() { d.Close() })
		d.Commands(func(c byte) { got <- c })
		say(t, dir, "a")
		<-got
	}
	if more := count("/proc/self/task") - threads; more > 5 {
		t.Errorf("%d threads more for %d services", more, n)
	}
	if more := count("/proc/self/fd") - files; more > 4*n+2 { // and the poller
		t.Errorf("%d descriptors more for %d services", more, n)
	}
}
