package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prefork-go/prefork"
)

// Record is something that happened, when, and who has written it.
type Record struct {
	Time time.Time // zero means the time at which it is written

	// Event is one of the types of prefork.Event, or Started, TookOver, Ended, Rotated, MoreWorkers, Warning or, of a type
	// that this version does not know, Unknown.
	Event fmt.Stringer

	// PID is the process that has written it, which a Journal sets; 0 where it is not known. During an upgrade two write.
	PID int
}

func (r Record) String() string {
	return fmt.Sprintf("%s %v", r.Time.Format(time.RFC3339Nano), r.Event)
}

type (
	// Started says that a manager has opened the journal.
	Started struct {
		PID       int
		Successor bool // it is to take over from one that goes on until then
	}

	// TookOver says that a successor has taken over, and how things stand with it.
	TookOver struct{ State State }

	// Ended says that a manager has closed the journal.
	Ended struct{ PID int }

	// Rotated is the first record of a file that follows another, and says how things stand. In the middle of a file it stands
	// where records before it could not be written.
	Rotated struct {
		Reason string // "size", "age", "request", "moved" where somebody else has moved or removed the file, or "behind"
		State  State
	}

	// MoreWorkers goes on where a Rotated or TookOver with more workers than a line holds ends.
	MoreWorkers struct{ Workers []prefork.WorkerInfo }

	// Warning is for what else there is to be said by a program.
	Warning struct{ Component, Error string }

	// Unknown is a record of a type that this version does not know.
	Unknown struct {
		Type string
		Data []byte // as it stands in the file
	}
)

func (e Started) String() string {
	if e.Successor {
		return fmt.Sprintf("manager %d has started as a successor", e.PID)
	}
	return fmt.Sprintf("manager %d has started", e.PID)
}
func (e TookOver) String() string { return fmt.Sprintf("manager %d has taken over", e.State.PID) }
func (e Ended) String() string    { return fmt.Sprintf("manager %d has ended", e.PID) }
func (e Rotated) String() string {
	if e.Reason == reasonBehind {
		return fmt.Sprintf("the journal goes on behind records that could not be written; %v", e.State)
	}
	return fmt.Sprintf("the journal goes on in a new file (%s); %v", e.Reason, e.State)
}
func (e MoreWorkers) String() string { return fmt.Sprintf("and %d workers more", len(e.Workers)) }
func (e Warning) String() string     { return fmt.Sprintf("%s: %s", e.Component, e.Error) }
func (e Unknown) String() string     { return fmt.Sprintf("%s: %s", e.Type, e.Data) }

// The types of records, as they are called in the file. Each has a content of its own, a struct below or in content.go:
// what is in a file must not change because a type of the program does.
var kinds = []kind{
	of("started", func(e Started) managerData { return managerData(e) }, func(d managerData) Started { return Started(d) }),
	of("took-over", func(e TookOver) stateData { return stateToData(e.State) }, func(d stateData) TookOver { return TookOver{d.state()} }),
	of("ended", func(e Ended) managerData { return managerData{PID: e.PID} }, func(d managerData) Ended { return Ended{d.PID} }),
	of("rotated", func(e Rotated) rotatedData { return rotatedData{e.Reason, stateToData(e.State)} }, func(d rotatedData) Rotated { return Rotated{d.Reason, d.stateData.state()} }),
	of("workers", func(e MoreWorkers) workersData { return workersData{workersToData(e.Workers)} }, func(d workersData) MoreWorkers { return MoreWorkers{workersOf(d.Workers)} }),
	of("warning", func(e Warning) warningData { return warningData{e.Component, cut(e.Error)} }, func(d warningData) Warning { return Warning(d) }),

	of("generation", func(e prefork.GenerationEvent) generationData { return generationData{e.Generation, e.MaxWorkers} },
		func(d generationData) prefork.GenerationEvent { return prefork.GenerationEvent(d) }),
	of("worker", workerEventToData, workerEventData.event),
	of("exit", exitToData, exitData.event),
	of("leftover", func(e prefork.LeftoverEvent) leftoverData {
		return leftoverData{workerToData(e.Worker), stateName(e.State)}
	},
		func(d leftoverData) prefork.LeftoverEvent {
			return prefork.LeftoverEvent{Worker: d.Worker.info(), State: prefork.State(d.State)}
		}),
	of("delay", func(e prefork.DelayEvent) delayData { return delayData{e.Slot, duration(e.For)} },
		func(d delayData) prefork.DelayEvent {
			return prefork.DelayEvent{Slot: d.Slot, For: time.Duration(d.For)}
		}),
	of("spawn-failed", spawnFailedToData, spawnFailedData.event),
	of("signal", func(e prefork.SignalEvent) signalData {
		return signalData{signal{e.Received}, signal{e.Sent}, duration(e.Interval), e.Rolling}
	}, func(d signalData) prefork.SignalEvent {
		return prefork.SignalEvent{Received: d.Received.Signal, Sent: d.Sent.Signal, Interval: time.Duration(d.Interval), Rolling: d.Rolling}
	}),
	of("resize", func(e prefork.ResizeEvent) resizeData { return resizeData(e) }, func(d resizeData) prefork.ResizeEvent { return prefork.ResizeEvent(d) }),
	of("reload-failed", func(e prefork.ReloadFailedEvent) errorData { return errorData{failure{e.Err}} },
		func(d errorData) prefork.ReloadFailedEvent { return prefork.ReloadFailedEvent{Err: d.Error.error} }),
	of("rolled", func(e prefork.RolledEvent) rolledData { return rolledData(e) }, func(d rolledData) prefork.RolledEvent { return prefork.RolledEvent(d) }),
	of("roll-failed", func(e prefork.RollFailedEvent) rollFailedData {
		return rollFailedData{e.Generation, e.Kept, failure{e.Err}}
	}, func(d rollFailedData) prefork.RollFailedEvent {
		return prefork.RollFailedEvent{Generation: d.Generation, Kept: d.Kept, Err: d.Error.error}
	}),
	of("crash-loop", func(e prefork.CrashLoopEvent) crashLoopData { return crashLoopData{e.Failures, duration(e.Window)} },
		func(d crashLoopData) prefork.CrashLoopEvent {
			return prefork.CrashLoopEvent{Failures: d.Failures, Window: time.Duration(d.Window)}
		}),
	of("pause", func(prefork.PauseEvent) struct{} { return struct{}{} }, func(struct{}) prefork.PauseEvent { return prefork.PauseEvent{} }),
	of("paused", func(e prefork.PausedEvent) workerData { return workerToData(e.Worker) },
		func(d workerData) prefork.PausedEvent { return prefork.PausedEvent{Worker: d.info()} }),
	of("resume", func(prefork.ResumeEvent) struct{} { return struct{}{} }, func(struct{}) prefork.ResumeEvent { return prefork.ResumeEvent{} }),
	of("upgrade", func(e prefork.UpgradeEvent) successorData { return successorData(e) }, func(d successorData) prefork.UpgradeEvent { return prefork.UpgradeEvent(d) }),
	of("upgraded", func(e prefork.UpgradedEvent) successorData { return successorData(e) }, func(d successorData) prefork.UpgradedEvent { return prefork.UpgradedEvent(d) }),
	of("upgrade-failed", func(e prefork.UpgradeFailedEvent) upgradeFailedData { return upgradeFailedData{e.PID, failure{e.Err}} },
		func(d upgradeFailedData) prefork.UpgradeFailedEvent {
			return prefork.UpgradeFailedEvent{PID: d.PID, Err: d.Error.error}
		}),
}

// kind is a type of records.
type kind struct {
	name   string
	encode func(event fmt.Stringer) (data any, ok bool)
	decode func(data []byte) (fmt.Stringer, error)
}

// of makes a kind of an event's type and that of its content.
func of[E fmt.Stringer, D any](name string, to func(E) D, from func(D) E) kind {
	return kind{
		name: name,
		encode: func(event fmt.Stringer) (any, bool) {
			e, ok := event.(E)
			if !ok {
				return nil, false
			}
			return to(e), true
		},
		decode: func(data []byte) (fmt.Stringer, error) {
			var d D
			if err := json.Unmarshal(data, &d); err != nil {
				return nil, err
			}
			return from(d), nil
		},
	}
}

// frame is a line of a journal.
type frame struct {
	Time time.Time       `json:"time"`
	PID  int             `json:"pid,omitempty"`
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// line is the record as it is written, with the end of the line.
func (r Record) line() ([]byte, error) {
	if u, ok := r.Event.(Unknown); ok {
		return finish(frame{r.Time.UTC(), r.PID, u.Type, u.Data})
	}
	for _, k := range kinds {
		content, ok := k.encode(r.Event)
		if !ok {
			continue
		}
		data, err := json.Marshal(content)
		if err != nil {
			return nil, fmt.Errorf("a record of type %s: %w", k.name, err)
		}
		return finish(frame{r.Time.UTC(), r.PID, k.name, data})
	}
	return nil, fmt.Errorf("there are no records of %T", r.Event)
}

// reasonBehind is that of a Rotated that makes good what could not be written.
const reasonBehind = "behind"

// perLine is how many workers a line has at most: well below maxLine, whatever there is to be said of them.
const perLine = 1000

// lines is the record as a Journal writes it: how things stand takes as many lines as there must be for the workers.
func (r Record) lines() ([]byte, error) {
	var more []prefork.WorkerInfo
	first := func(s State) State {
		n := min(len(s.Workers), perLine)
		s.Workers, more = s.Workers[:n], s.Workers[n:]
		return s
	}
	switch e := r.Event.(type) {
	case Rotated:
		r.Event = Rotated{e.Reason, first(e.State)}
	case TookOver:
		r.Event = TookOver{first(e.State)}
	}
	all, err := r.line()
	for part := range slices.Chunk(more, perLine) {
		line, errPart := Record{r.Time, MoreWorkers{part}, r.PID}.line()
		all, err = append(all, line...), errors.Join(err, errPart)
	}
	return all, err
}

func finish(f frame) ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // what a later version has written stays as it is
	err := e.Encode(f)
	if err == nil && line.Len() > maxLine {
		err = fmt.Errorf("a record of type %s with %d bytes is too long", f.Type, line.Len()-1)
	}
	return line.Bytes(), err
}

// parse reads a line.
func parse(line []byte) (Record, error) {
	var f frame
	if err := json.Unmarshal(line, &f); err != nil {
		return Record{}, err
	}
	switch {
	case f.Time.IsZero():
		return Record{}, errors.New("a record without a time")
	case f.Type == "":
		return Record{}, errors.New("a record without a type")
	}
	for _, k := range kinds {
		if k.name != f.Type {
			continue
		}
		event, err := k.decode(f.Data)
		if err != nil {
			return Record{}, fmt.Errorf("a record of type %s: %w", f.Type, err)
		}
		return Record{f.Time, event, f.PID}, nil
	}
	var data bytes.Buffer
	if f.Data == nil {
		f.Data = json.RawMessage("null")
	}
	if err := json.Compact(&data, f.Data); err != nil {
		return Record{}, err
	}
	return Record{f.Time, Unknown{f.Type, data.Bytes()}, f.PID}, nil
}

// maxLine bounds what is kept of a damaged file in memory. Errors in records are cut well below it.
const maxLine = 1 << 20

// maxText bounds the text of an error.
const maxText = 32 << 10

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText] + " …"
	}
	return s
}
