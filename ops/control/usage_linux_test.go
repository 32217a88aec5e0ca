package control

import (
	"os"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// Only a child is shown: a pid can be that of another process by now.
func TestUsage(t *testing.T) {
	for _, pid := range []int{os.Getpid(), os.Getppid(), 1, 1 << 30} {
		if rss, _, _ := usageOf(pid); rss != nil {
			t.Errorf("process %d, which is no child, uses %d bytes", pid, *rss)
		}
	}
	p := preforktest.Start(t, "pool", newSocketPath(t))
	p.Expect("open")
	rss, private, cpu := usageOf(p.PID())
	if rss == nil || private == nil || cpu == nil || *private > *rss {
		t.Errorf("a child: %v, %v, %v", rss, private, cpu)
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]int{
		"7 (a) b) c) S 42 1 1 0 -1 4194560 1 2 3 4 100 25 0 0 20 0": 42,
		"": 0, "7 (a) S": 0, "7 (a) S x 1 1 0 -1 4194560 1 2 3 4 100 25 0 0": 0, "7 (a) S 42 1 1 0 -1 4194560 1 2 3 4 x 25 0 0": 0,
	} {
		parent, ticks, ok := parseStat([]byte(text))
		if ok != (want != 0) || ok && (parent != want || ticks != 125) {
			t.Errorf("%q: %d, %d, %t", text, parent, ticks, ok)
		}
	}
	for text, want := range map[string]bool{"100 50 20 1 0 7 0": true, "": false, "1 2": false, "1 x 3": false, "1 2 x": false} {
		if resident, shared, ok := parseStatm([]byte(text)); ok != want || ok && (resident != 50 || shared != 20) {
			t.Errorf("%q: %d, %d, %t", text, resident, shared, ok)
		}
	}
}
