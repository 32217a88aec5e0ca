package run

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/ops/capture"
)

// A recorder gives each worker its pipes. Hooks call it.
type recorder struct {
	log     *slog.Logger
	capture *output.Log     // nil if the workers have the streams of this process
	shown   bool            // the lines are on stderr, beside the events
	opened  *capture.Worker // of the worker that is about to be spawned
	workers map[int]*capture.Worker
	notes   sync.WaitGroup // last lines that are still to be noted
}

// open makes the pipes of a worker. Without them, for lack of descriptors, it
// writes to stderr.
func (r *recorder) open(sp *prefork.Spawn) {
	if r.capture == nil {
		return
	}
	r.cancel()
	w, err := r.capture.Open(sp.Slot)
	if err != nil {
		r.log.Warn("no pipes for the log of a worker, which writes to stderr", "slot", sp.Slot, "err", err)
		return
	}
	r.opened, sp.Stdout, sp.Stderr = w, w.Stdout, w.Stderr
}

func (r *recorder) started(pid int) {
	if r.opened != nil {
		r.opened.Started(pid)
		r.workers[pid], r.opened = r.opened, nil
	}
}

// cancel closes the pipes of a worker that was not spawned.
func (r *recorder) cancel() {
	if r.opened != nil {
		r.opened.Cancel()
		r.opened = nil
	}
}

// ended notes the end of a worker. After a bad one its last lines are in the event
// log, unless they are beside it anyway.
func (r *recorder) ended(m *prefork.Manager, e prefork.Exit) {
	w := r.workers[e.PID]
	if w == nil {
		return
	}
	delete(r.workers, e.PID)
	if r.shown || e.Reason == prefork.ReasonFinished || e.Reason == prefork.ReasonStopped || e.Reason == prefork.ReasonRecycled {
		w.Ended(nil)
		return
	}
	r.notes.Add(1)
	w.Ended(func(last []capture.Line) {
		defer r.notes.Done()
		if len(last) == 0 {
			return
		}
		texts := make([]string, len(last))
		for i, line := range last {
			texts[i] = line.Text
		}
		m.Note("log", fmt.Sprintf("last lines of worker %d: %s", e.PID, strings.Join(texts, " | ")))
	})
}
