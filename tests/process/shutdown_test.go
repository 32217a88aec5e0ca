//go:build unix

package process_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("asking", asking)
}

// asking is a program in which one of two workers shuts the pool down. Its
// arguments are the main loop, and the code.
func asking() {
	code := int(os.Args[2][0] - '0')
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 2, WorkerShutdown: true})
	work := func(w *prefork.Worker) {
		if w.Slot() == 1 {
			w.ShutdownPool(code, "no model")
			return
		}
		<-w.Context().Done()
	}
	var err error
	switch os.Args[1] {
	case "Run":
		err = pm.Run(context.Background(), func(w *prefork.Worker) error { work(w); return nil })
	case "Start":
		for pm.SignalReceived() != term {
			if pm.Start() {
				continue
			}
			work(pm.Worker())
			pm.Finish(code)
		}
		_, err = pm.WaitAllChildren(context.Background())
	}
	testprog.Print("error: %v", err)
	var failed *prefork.WorkerError
	if errors.As(err, &failed) {
		os.Exit(failed.Code)
	}
}

// A worker shuts the pool down, and main exits with its code.
func TestWorkerShutsPoolDown(t *testing.T) {
	for _, way := range []string{"Run", "Start"} {
		for code, want := range []string{`^error: <nil>$`, `^error: prefork: worker \d+ \(slot 1, generation 1\) requested a shutdown with code 1: no model$`} {
			p := preforktest.Start(t, "asking", way, string(rune('0'+code)))
			p.Expect(want)
			if state := p.Wait(); state.ExitCode() != code {
				t.Errorf("%s: %v, want code %d", way, state, code)
			}
		}
	}
}
