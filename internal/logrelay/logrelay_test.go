package logrelay

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stalling is a log that takes no line before stalled is closed.
type stalling struct {
	bytes.Buffer
	stalled <-chan struct{}
}

func (s *stalling) Write(p []byte) (int, error) {
	<-s.stalled
	return s.Buffer.Write(p)
}

func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := make(chan struct{})
		out := &stalling{stalled: stalled}
		log, _, relay := New(slog.New(slog.NewTextHandler(out, nil)).With("pool", "web"))
		began := time.Now()
		for i := range 3 + maxLines {
			log.WithGroup("g").Info("line", "i", i)
		}
		if waited := time.Since(began); waited != patience {
			t.Errorf("the caller waited for %v, want %v", waited, patience)
		}
		relay.Flush()
		if waited := time.Since(began); waited > 2*patience {
			t.Errorf("the caller waited for %v in all", waited)
		}
		close(stalled)
		synctest.Wait()
		log.Info("last")
		relay.Flush()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 1+maxLines+2 {
			t.Fatalf("%d lines", len(lines))
		}
		for i, line := range lines[:1+maxLines] {
			if !strings.HasSuffix(line, fmt.Sprintf("msg=line pool=web g.i=%d", i)) {
				t.Errorf("line %d: %s", i, line)
			}
		}
		if line := lines[1+maxLines]; !strings.Contains(line, "log lines dropped") || !strings.HasSuffix(line, "pool=web lines=2") {
			t.Error(line)
		}
		if line := lines[2+maxLines]; !strings.HasSuffix(line, "msg=last pool=web") {
			t.Error(line)
		}
	})
}

// Deferred lines are written in order, and are there after Finish. The caller
// never runs far ahead of a slow log.
func TestRelayCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &slow{}
		_, deferred, relay := New(slog.New(slog.NewTextHandler(out, nil)))
		for i := range 3 * maxAhead {
			deferred.Info("line", "i", i)
			if behind := i - int(out.lines.Load()); behind > maxAhead {
				t.Fatalf("%d lines behind", behind)
			}
		}
		began := time.Now()
		relay.Flush()
		if took := time.Since(began); took > patience {
			t.Errorf("a slow log held up the loop for %v", took)
		}
		relay.Finish()
		if out.lines.Load() != 3*maxAhead {
			t.Fatalf("%d lines written of %d", out.lines.Load(), 3*maxAhead)
		}
	})
}

// slow is a log that takes one line in 20 milliseconds.
type slow struct{ lines atomic.Int64 }

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(20 * time.Millisecond)
	if !bytes.HasSuffix(p, fmt.Appendf(nil, "i=%d\n", s.lines.Load())) {
		panic(fmt.Sprintf("line %d: %s", s.lines.Load(), p))
	}
	s.lines.Add(1)
	return len(p), nil
}

// The comment of New and docs/DESIGN.md state these limits.
func TestConstants(t *testing.T) {
	if patience != 100*time.Millisecond || maxLines != 1000 || maxAhead != 100 {
		t.Errorf("patience %v, %d lines, %d ahead; want 100 ms, 1,000 and 100", patience, maxLines, maxAhead)
	}
}
