//go:build unix

package process_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("operated", operated) }

// operated is a program that another goroutine operates: it reads commands from
// standard input and prints their outcomes, and every event that it follows.
func operated() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 2, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}},
		Reload: func() ([]byte, error) { testprog.Print("Reload is called"); return nil, nil },
	})
	if !prefork.IsWorker() {
		now, _ := pm.Follow(func(rec prefork.Record) {
			testprog.Print("event %d %s: %v", rec.Seq, strings.TrimPrefix(fmt.Sprintf("%T", rec.Event), "prefork."), rec.Event)
		})
		testprog.Print("follows from %d, %d workers, reaper %d", now.Seq, len(now.Workers), prefork.ReaperPID())
		go operate(pm)
	}
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
	testprog.Print("Run returned %v", err)
}

// operate carries out the commands in standard input, one a line.
func operate(pm *prefork.Manager) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		switch command {
		case "ping":
			testprog.Print("ping: %v", pm.Ping(ctx))
		case "note":
			pm.Note("the test", rest)
		}
		cancel()
	}
}

// startOperated starts the program, and returns a function that gives it a
// command.
func startOperated(t *testing.T, args ...string) (p *preforktest.Program, do func(format string, a ...any)) {
	t.Helper()
	p = preforktest.New(t, "operated", args...)
	stdin, err := p.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	p.Expect(`^follows from 0, 0 workers, reaper 0$`)
	return p, func(format string, a ...any) {
		t.Helper()
		if _, err := io.WriteString(stdin, fmt.Sprintf(format+"\n", a...)); err != nil {
			t.Fatal(err)
		}
	}
}

// A program that follows a Manager sees its whole life, in order.
func TestFollowProcess(t *testing.T) {
	p, do := startOperated(t)
	p.Expect(`^event 1 StartedEvent: `)
	p.Expect(`^Reload is called$`)
	p.Expect(`^event 2 GenerationEvent: `)
	p.Expect(`^event \d+ StateEvent: worker \d+ .* ready$`)
	p.Expect(`^event \d+ StateEvent: worker \d+ .* ready$`)
	do("ping")
	p.Expect(`^ping: <nil>$`)
	do("note reload")
	p.Expect(`^event \d+ NoteEvent: reload, asked for by the test$`)
	p.Signal(hup)
	p.Expect(`^event \d+ ReloadEvent: reload begins for SIGHUP$`)
	p.Expect(`^Reload is called$`)
	p.Expect(`^event \d+ SignalEvent: SIGHUP received`)
	p.Expect(`^event \d+ RolledEvent: `)
	p.Signal(term)
	p.Expect(`^event \d+ EndedEvent: manager ended$`)
	p.Expect(`^Run returned <nil>$`)
	testprog.ExpectSuccess(t, p)
	last := 0
	for _, line := range p.Lines() {
		var n int
		if _, err := fmt.Sscanf(line, "event %d ", &n); err != nil {
			continue
		}
		if n != last+1 {
			t.Errorf("event %d follows %d", n, last)
		}
		last = n
	}
}
