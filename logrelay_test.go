package prefork

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

// stalling is a log that takes no line while it is stalled.
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
		log, _ := newRelay(slog.New(slog.NewTextHandler(out, nil)).With("pool", "web"))
		m := &Manager{log: log}
		began := time.Now()
		for i := range 3 + relayLines {
			log.WithGroup("g").Info("line", "i", i)
		}
		if waited := time.Since(began); waited != relayPatience {
			t.Errorf("the caller waited for %v, want %v", waited, relayPatience)
		}
		m.flushLog()
		if waited := time.Since(began); waited > 2*relayPatience {
			t.Errorf("the caller waited for %v in all", waited)
		}
		close(stalled)
		synctest.Wait()
		log.Info("last")
		m.flushLog()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 1+relayLines+2 {
			t.Fatalf("%d lines", len(lines))
		}
		for i, line := range lines[:1+relayLines] {
			if !strings.HasSuffix(line, fmt.Sprintf("msg=line pool=web g.i=%d", i)) {
				t.Errorf("line %d: %s", i, line)
			}
		}
		if line := lines[1+relayLines]; !strings.Contains(line, "lines of the log are lost") || !strings.HasSuffix(line, "pool=web lines=2") {
			t.Error(line)
		}
		if line := lines[2+relayLines]; !strings.HasSuffix(line, "msg=last pool=web") {
			t.Error(line)
		}
	})
}

// Lines that nobody waits for are written in their order, and are there when the loop asks for it. Nobody runs far ahead of
// a log that is slow.
func TestRelayCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &slow{}
		m := new(Manager)
		m.log, m.events = newRelay(slog.New(slog.NewTextHandler(out, nil)))
		for i := range 3 * relayAhead {
			m.events.Info("line", "i", i)
			if behind := i - int(out.lines.Load()); behind > relayAhead {
				t.Fatalf("%d lines behind", behind)
			}
		}
		began := time.Now()
		m.flushLog()
		if took := time.Since(began); took > relayPatience {
			t.Errorf("a slow log held up the loop for %v", took)
		}
		m.finishLog()
		if out.lines.Load() != 3*relayAhead {
			t.Fatalf("%d lines written of %d", out.lines.Load(), 3*relayAhead)
		}
	})
}

// slow is a log that takes a line each 20 milliseconds.
type slow struct{ lines atomic.Int64 }

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(20 * time.Millisecond)
	if !bytes.HasSuffix(p, fmt.Appendf(nil, "i=%d\n", s.lines.Load())) {
		panic(fmt.Sprintf("line %d: %s", s.lines.Load(), p))
	}
	s.lines.Add(1)
	return len(p), nil
}
