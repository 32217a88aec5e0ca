package supervise_test

import (
	"os"
	"testing"

	"github.com/prefork-go/prefork/ops/supervise"
)

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
