package preforktest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitFor(t *testing.T) {
	t.Parallel()
	n := 0
	WaitFor(t, "three calls", func() bool { n++; return n == 3 })
	if n != 3 {
		t.Errorf("%d calls", n)
	}
	ft := &fakeT{deadline: time.Now().Add(20 * time.Millisecond)}
	ft.run(func() { WaitFor(ft, "the impossible", func() bool { return false }) })
	ft.wantErrors(t, "the impossible: not so after")
	if !ft.fatal {
		t.Error("not fatal")
	}
}

// The documentation states these timeouts.
func TestDocumentedTimeouts(t *testing.T) {
	if waitTimeout != 30*time.Second {
		t.Errorf("waitTimeout is %v; doc.go states 30 seconds", waitTimeout)
	}
	if leakTimeout != 10*time.Second {
		t.Errorf("leakTimeout is %v; NoLeaks, Main and Stop state 10 seconds", leakTimeout)
	}
	p := Command(t, selfCommand(t).Cmd)
	if p.orphanGrace != leakTimeout || p.outputGrace != leakTimeout {
		t.Errorf("orphanGrace %v, outputGrace %v, want leakTimeout", p.orphanGrace, p.outputGrace)
	}
}

// If the deadline of the test is near, a wait takes nine tenths of the
// remaining time; otherwise waitTimeout.
func TestWaitLimit(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		0:                waitTimeout, // no deadline
		time.Hour:        waitTimeout,
		10 * time.Second: 9 * time.Second,
		-time.Second:     0,
	} {
		synctest.Test(t, func(t *testing.T) {
			ft := &fakeT{}
			if left != 0 {
				ft.deadline = time.Now().Add(left)
			}
			if got := waitLimit(ft); got != want {
				t.Errorf("deadline in %v: %v, want %v", left, got, want)
			}
		})
	}
}

// poll calls at least every 50 ms, and gives up at the limit.
func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		last, longest := began, time.Duration(0)
		ok := poll(10*time.Second, func() bool {
			longest = max(longest, time.Since(last))
			last = time.Now()
			return false
		})
		took := time.Since(began)
		if ok || took < 10*time.Second || took > 10*time.Second+50*time.Millisecond {
			t.Errorf("poll: %v after %v, want false after 10s", ok, took)
		}
		if longest != 50*time.Millisecond {
			t.Errorf("longest pause %v, want 50ms", longest)
		}
	})
}
