package run

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/ops/capture/logfile"
)

// Values of --log that are no file.
const (
	logStderr = "-"
	logNone   = "none"
)

// logCommand returns the line of the shell in a value of --log.
func logCommand(value string) (line string, ok bool) {
	line, ok = strings.CutPrefix(value, "|")
	return strings.TrimSpace(line), ok
}

func isLogFile(value string) bool {
	_, command := logCommand(value)
	return value != logStderr && value != logNone && !command
}

// openLog opens the log of the programs; nil if they write to the streams of this
// process.
func (p *plan) openLog(log *slog.Logger) (*capture.Capture, error) {
	if p.Log == logNone {
		return nil, nil
	}
	report := func(err error) {
		if err == nil {
			log.Info("the log takes lines again", "log", p.Log)
			return
		}
		log.Error("the log takes no lines", "log", p.Log, "err", err)
	}
	sink, err := p.sink(func(err error) { log.Error("the command of the log has ended", "log", p.Log, "err", err) })
	if err != nil {
		return nil, fmt.Errorf("--log %s: %w", p.Log, err)
	}
	cfg := capture.Config{Sink: sink, Name: p.Name, Report: report}
	switch {
	case p.LogPrefix:
		cfg.Format = capture.Prefix
	case p.LogJSON:
		cfg.Format = capture.JSON
	}
	return capture.New(cfg)
}

func (p *plan) sink(report func(error)) (capture.Sink, error) {
	if p.Log == logStderr {
		return capture.NewStream(os.Stderr)
	}
	if line, ok := logCommand(p.Log); ok {
		if line == "" {
			return nil, fmt.Errorf("there is no command behind the bar")
		}
		return capture.NewCommand(capture.CommandConfig{Args: []string{"/bin/sh", "-c", line}, Report: report})
	}
	return logfile.Open(logfile.Config{Path: p.Log, MaxSize: p.logSize, Keep: p.logKeep})
}

// A recorder gives each worker its pipes. Hooks call it.
type recorder struct {
	log     *slog.Logger
	capture *capture.Capture // nil if the workers have the streams of this process
	shown   bool             // the lines are on stderr, beside the events
	opened  *capture.Worker  // of the worker that is about to be spawned
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
