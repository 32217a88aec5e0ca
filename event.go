package prefork

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prefork-go/prefork/internal/plain"
	"github.com/prefork-go/prefork/internal/sig"
)

// Event is a change of state, which Config.Observe and Manager.Follow receive. It
// is one of
//
//	StartedEvent        the Manager starts its work
//	GenerationEvent     a generation of workers begins
//	StateEvent          a worker was spawned, became ready, was stopped or killed
//	ExitEvent           a worker was reaped
//	LeftoverEvent       leftover processes of a worker were stopped, killed or are gone
//	DelayEvent          the next spawn of a slot is delayed
//	DoneEvent           a slot gets no other worker
//	HoldEvent           a slot is held or released
//	SpawnFailedEvent    a worker could not be spawned
//	SignalEvent         a signal was received and forwarded by the table
//	ResizeEvent         MaxWorkers was changed
//	ReloadEvent         the workers are about to be replaced
//	ReloadFailedEvent   Config.Reload failed, and the workers keep running
//	RolledEvent         a rolling replacement is complete
//	RollFailedEvent     a rolling replacement failed
//	SettledEvent        all workers are ready, and nothing is under way
//	CrashLoopEvent      the workers keep failing, and the Manager shuts down
//	PauseEvent          the workers are asked to pause
//	PausedEvent         a worker has paused
//	ResumeEvent         the workers are asked to resume
//	UpgradeEvent        a successor was started
//	UpgradedEvent       it has taken over
//	UpgradeFailedEvent  it has failed, or could not be started
//	NoteEvent           a note of the program, by Manager.Note
//	EndedEvent          the last worker was reaped after a shutdown
//
// and no other type. String returns it as one line. Its JSON is an object with its
// name by the key "event", such as "spawn-failed", and its fields by lower-case keys.
type Event interface {
	fmt.Stringer
	// line returns the event as a line of the log.
	line() (slog.Level, string, []slog.Attr)
}

// A Record is an event with its number in this process, from 1 without a gap,
// and its time; see Manager.Follow.
type Record struct {
	Seq   uint64
	Time  time.Time
	Event Event
}

type (
	// StartedEvent reports that the first Start or Run begins, or the first one
	// after an EndedEvent.
	StartedEvent struct{}

	// GenerationEvent reports that Start began a generation. Program is the file
	// that its workers run, without symbolic links; with Config.Command it is the
	// first of its arguments.
	GenerationEvent struct {
		Generation int    `json:"gen"`
		MaxWorkers int    `json:"max_workers"`
		Program    string `json:"program"`
	}

	// StateEvent reports that a worker went from state From to Worker.State.
	// Reason is set in state killed.
	StateEvent struct {
		Worker WorkerInfo `json:"worker"`
		From   State      `json:"from"`
		Reason Reason     `json:"reason,omitzero"`
	}

	// ExitEvent reports that a worker was reaped. From is its last state.
	ExitEvent struct {
		Exit Exit  `json:"exit"`
		From State `json:"from"`
	}

	// LeftoverEvent reports on the processes that remain in the process group of
	// a worker that was reaped (Config.StopGroup). State is StateStopping after
	// they were sent the stop signal, then StateGone or StateKilled.
	LeftoverEvent struct {
		Worker WorkerInfo `json:"worker"`
		State  State      `json:"state"`
	}

	// DelayEvent reports that a slot waits before its next spawn, because its
	// workers exit too soon. Slot is -1 if the next standby waits: for the delay
	// of the slot that the last one took, or because standbys exit too soon.
	DelayEvent struct {
		Slot int
		For  time.Duration
	}

	// DoneEvent reports that a slot is done: its worker has exited, and
	// Config.Restart starts no other. It follows the ExitEvent.
	DoneEvent struct {
		Slot int `json:"slot"`
	}

	// HoldEvent reports that a slot is held, by Manager.Hold, or that it is no longer
	// held or done, by Manager.Release.
	HoldEvent struct {
		Slot int  `json:"slot"`
		Held bool `json:"held"`
	}

	// SpawnFailedEvent reports a failed spawn, and the time until the next one. A
	// program file that is open for writing is tried again for 2 s; only the first
	// of these failures in a slot is reported, and the last. A Command that is
	// started through a second start of this program can also fail there. The event
	// then follows the ExitEvent, and Retry is 0.
	SpawnFailedEvent struct {
		Err   *SpawnError
		Retry time.Duration
	}

	// SignalEvent reports a received signal and the signal that is sent to the
	// workers for it; nil means none.
	SignalEvent struct {
		Received, Sent os.Signal
		Interval       time.Duration
		Rolling        bool
		Replaces       bool   // a new generation replaces the workers
		Origin         string // the cause if no process has sent the signal; "" if one has
	}

	// ResizeEvent reports that MaxWorkers was changed.
	ResizeEvent struct {
		From int `json:"from"`
		To   int `json:"to"`
	}

	// ReloadEvent reports a signal that replaces the workers, before Config.Reload
	// is called and before any worker is signalled.
	ReloadEvent struct {
		Received os.Signal
		Origin   string // as in SignalEvent
	}

	// ReloadFailedEvent reports that Config.Reload failed, or that the program
	// file on disk cannot be run (Config.ReloadBinary).
	ReloadFailedEvent struct{ Err error }

	// RolledEvent reports that all workers that are not stopping are of Generation
	// or a later one. A RollFailedEvent can follow within 5 s.
	RolledEvent struct {
		Generation int `json:"gen"`
	}

	// RollFailedEvent reports that Generation has failed, and that the workers of
	// generation Kept keep running. Err is a *SpawnError if a worker could not be
	// spawned.
	RollFailedEvent struct {
		Generation, Kept int
		Err              error
	}

	// SettledEvent reports that the pool has become settled; see Snapshot.Settled.
	// Generation is the one that serves.
	SettledEvent struct {
		Generation int `json:"gen"`
	}

	// CrashLoopEvent reports that this many workers failed within Window while none
	// was ready. The shutdown signal follows.
	CrashLoopEvent struct {
		Failures int
		Window   time.Duration
	}

	// PauseEvent reports that the workers are asked to pause.
	PauseEvent struct{}

	// PausedEvent reports that a worker waits at its checkpoint.
	PausedEvent struct {
		Worker WorkerInfo `json:"worker"`
	}

	// ResumeEvent reports that the workers are asked to resume. None of them counts
	// as paused from then on.
	ResumeEvent struct{}

	// UpgradeEvent reports that a successor was started. PID is its pid, Program
	// the file that it runs, without symbolic links.
	UpgradeEvent struct {
		PID     int    `json:"successor"`
		Program string `json:"program"`
	}

	// UpgradedEvent reports that the successor has taken over. The shutdown signal
	// follows.
	UpgradedEvent struct {
		PID int `json:"successor"`
	}

	// UpgradeFailedEvent reports that the successor has failed, and has exited or,
	// if a shutdown is the reason, was stopped. PID is 0 if none was started.
	UpgradeFailedEvent struct {
		PID int
		Err error
	}

	// NoteEvent is a note that Manager.Note has added: a text, and who caused it.
	NoteEvent struct {
		By   string `json:"by"`
		Text string `json:"text"`
	}

	// EndedEvent reports that no worker remains after a shutdown, or that the
	// first call of Config.Reload failed. Err is the error that Run or
	// WaitAllChildren returns.
	EndedEvent struct{ Err error }
)

func (e StartedEvent) String() string { return "manager started" }

func (e StartedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelDebug, "manager started", nil
}

func (e GenerationEvent) String() string {
	return fmt.Sprintf("generation %d of %d workers begins", e.Generation, e.MaxWorkers)
}

func (e GenerationEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "generation begins", []slog.Attr{slog.Int("gen", e.Generation), slog.Int("workers", e.MaxWorkers),
		slog.String("program", e.Program)}
}

func (e StateEvent) String() string {
	if e.Reason != 0 {
		return fmt.Sprintf("%v: %v", e.Worker, e.Reason)
	}
	return e.Worker.String()
}

func (e StateEvent) line() (slog.Level, string, []slog.Attr) {
	if e.Worker.State == StateKilled {
		return slog.LevelWarn, "worker killed", e.Worker.attrs(slog.String("reason", e.Reason.String()))
	}
	return slog.LevelInfo, "worker " + e.Worker.State.String(), e.Worker.attrs()
}

func (e ExitEvent) String() string { return e.Exit.String() }

func (e ExitEvent) line() (slog.Level, string, []slog.Attr) {
	x := e.Exit
	attrs := workerAttrs(x.Slot, x.Generation, x.PID, slog.String("reason", x.Reason.String()),
		slog.String("status", x.Status.String()), duration("uptime", x.Uptime))
	switch x.Reason {
	case ReasonFinished, ReasonStopped, ReasonRecycled:
		return slog.LevelInfo, "worker gone", attrs
	}
	return slog.LevelWarn, "worker gone", attrs
}

func (e LeftoverEvent) String() string {
	return fmt.Sprintf("leftover processes of worker %d (%s, generation %d): %v", e.Worker.PID, slotName(e.Worker.Slot), e.Worker.Generation, e.State)
}

func (e LeftoverEvent) line() (slog.Level, string, []slog.Attr) {
	level := slog.LevelInfo
	if e.State == StateKilled {
		level = slog.LevelWarn
	}
	return level, "leftover processes " + e.State.String(), e.Worker.attrs()
}

func (e DelayEvent) String() string {
	return fmt.Sprintf("%s waits %v before its next spawn", slotName(e.Slot), e.For.Round(time.Millisecond))
}

func (e DelayEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelWarn, "respawn delayed", []slog.Attr{slog.Int("slot", e.Slot), duration("for", e.For)}
}

func (e DoneEvent) String() string { return fmt.Sprintf("slot %d is done", e.Slot) }

func (e DoneEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "slot done", []slog.Attr{slog.Int("slot", e.Slot)}
}

func (e HoldEvent) String() string { return fmt.Sprintf("slot %d %s", e.Slot, e.verb()) }

func (e HoldEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "slot " + e.verb(), []slog.Attr{slog.Int("slot", e.Slot)}
}

func (e HoldEvent) verb() string {
	if e.Held {
		return "held"
	}
	return "released"
}

func (e SpawnFailedEvent) String() string {
	if e.Retry == 0 {
		return plain.Line(e.Err.Error())
	}
	return fmt.Sprintf("%s; next try in %v", plain.Line(e.Err.Error()), e.Retry.Round(time.Millisecond))
}

func (e SpawnFailedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "spawn failed", []slog.Attr{slog.Int("slot", e.Err.Slot), slog.Int("gen", e.Err.Generation),
		slog.Any("err", e.Err.Err), duration("retry", e.Retry)}
}

func (e SignalEvent) String() string {
	sent, what := sig.Name(e.Sent), sig.Name(e.Received)+" received"
	_, request := e.Received.(Request)
	switch {
	case request:
		what = sig.Name(e.Received) + " requested"
	case e.Origin == "":
	case e.Origin == byDeliver:
		what = sig.Name(e.Received) + " delivered"
	default:
		what = fmt.Sprintf("shutdown (%s)", plain.Line(e.Origin))
	}
	if e.Rolling {
		return fmt.Sprintf("%s, each worker is sent %s when its replacement is ready", what, sent)
	}
	if e.Interval > 0 {
		return fmt.Sprintf("%s, %s sent to one worker each %v", what, sent, e.Interval)
	}
	return fmt.Sprintf("%s, %s sent to the workers", what, sent)
}

func (e SignalEvent) line() (slog.Level, string, []slog.Attr) {
	attrs := []slog.Attr{slog.String("signal", sig.Name(e.Received)), slog.String("forward", sig.Name(e.Sent))}
	if e.Rolling {
		attrs = append(attrs, slog.Bool("rolling", true))
	}
	if e.Interval > 0 {
		attrs = append(attrs, duration("interval", e.Interval))
	}
	_, request := e.Received.(Request)
	switch {
	case request:
		attrs[0].Key = "request"
		return slog.LevelInfo, "request received", attrs
	case e.Origin == "":
		return slog.LevelInfo, "signal received", attrs
	case e.Origin == byDeliver:
		return slog.LevelInfo, "signal delivered", attrs
	}
	return slog.LevelInfo, "shutdown begins", append(attrs[1:], slog.String("because", e.Origin))
}

func (e ResizeEvent) String() string { return fmt.Sprintf("from %d to %d workers", e.From, e.To) }

func (e ResizeEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "max workers changed", []slog.Attr{slog.Int("from", e.From), slog.Int("to", e.To)}
}

func (e ReloadEvent) String() string {
	return fmt.Sprintf("reload begins for %s", sig.Name(e.Received))
}

func (e ReloadEvent) line() (slog.Level, string, []slog.Attr) {
	attrs := []slog.Attr{slog.String("signal", sig.Name(e.Received))}
	if e.Origin != "" {
		attrs = append(attrs, slog.String("because", e.Origin))
	}
	return slog.LevelInfo, "reload begins", attrs
}

func (e ReloadFailedEvent) String() string {
	return plain.Line(fmt.Sprintf("reload failed, keeping workers: %v", e.Err))
}

func (e ReloadFailedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "reload failed, keeping workers", []slog.Attr{slog.Any("err", e.Err), slog.String("next", "correct it, then reload again")}
}

func (e RolledEvent) String() string {
	return fmt.Sprintf("all workers are of generation %d", e.Generation)
}

func (e RolledEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "workers replaced", []slog.Attr{slog.Int("gen", e.Generation)}
}

func (e RollFailedEvent) String() string {
	return plain.Line(fmt.Sprintf("generation %d failed, keeping generation %d: %v", e.Generation, e.Kept, e.Err))
}

func (e RollFailedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "new generation failed, keeping previous workers", []slog.Attr{slog.Int("gen", e.Generation),
		slog.Int("kept", e.Kept), slog.Any("err", e.Err), slog.String("next", "correct it, then reload again; crashed workers are replaced by the kept generation")}
}

func (e SettledEvent) String() string { return fmt.Sprintf("generation %d has settled", e.Generation) }

func (e SettledEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "settled", []slog.Attr{slog.Int("gen", e.Generation)}
}

func (e CrashLoopEvent) String() string {
	return fmt.Sprintf("crash loop, shutting down: %d failures in %v", e.Failures, e.Window)
}

func (e CrashLoopEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "crash loop, shutting down", []slog.Attr{slog.Int("failures", e.Failures), duration("within", e.Window)}
}

func (e PauseEvent) String() string { return "pause requested" }

func (e PauseEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "pause requested", nil
}

func (e PausedEvent) String() string { return e.Worker.String() }

func (e PausedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelDebug, "worker paused", e.Worker.attrs()
}

func (e ResumeEvent) String() string { return "resume requested" }

func (e ResumeEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "resume requested", nil
}

func (e UpgradeEvent) String() string { return fmt.Sprintf("successor %d started", e.PID) }

func (e UpgradeEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "upgrade begins", []slog.Attr{slog.Int("successor", e.PID), slog.String("program", e.Program)}
}

func (e UpgradedEvent) String() string { return fmt.Sprintf("successor %d has taken over", e.PID) }

func (e UpgradedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "successor has taken over, shutting down", []slog.Attr{slog.Int("successor", e.PID)}
}

func (e UpgradeFailedEvent) String() string {
	return plain.Line(fmt.Sprintf("upgrade failed, keeping this manager: %v", e.Err))
}

func (e UpgradeFailedEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "upgrade failed, keeping this manager", []slog.Attr{slog.Any("err", e.Err), slog.String("next", "correct the program on disk, then upgrade again")}
}

func (e NoteEvent) String() string {
	if e.By == "" {
		return e.Text
	}
	return fmt.Sprintf("%s, asked for by %s", e.Text, e.By)
}

func (e NoteEvent) line() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "note", []slog.Attr{slog.String("text", e.Text), slog.String("by", e.By)}
}

func (e EndedEvent) String() string {
	if e.Err != nil {
		return fmt.Sprintf("manager ended: %v", e.Err)
	}
	return "manager ended"
}

func (e EndedEvent) line() (slog.Level, string, []slog.Attr) {
	if e.Err != nil {
		return slog.LevelError, "manager ended", []slog.Attr{slog.Any("err", e.Err)}
	}
	return slog.LevelDebug, "manager ended", nil
}

// attrs identifies a worker in the log.
func (w WorkerInfo) attrs(more ...slog.Attr) []slog.Attr {
	return workerAttrs(w.Slot, w.Generation, w.PID, more...)
}

func workerAttrs(slot, gen, pid int, more ...slog.Attr) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 6), slog.Int("slot", slot), slog.Int("gen", gen), slog.Int("pid", pid))
	return append(attrs, more...)
}

// duration is a duration as text, since slog writes it to JSON as a number of
// nanoseconds.
func duration(key string, d time.Duration) slog.Attr {
	if d > time.Second {
		d = d.Round(time.Millisecond)
	}
	return slog.String(key, d.String())
}
