// Package record encodes the events of a prefork.Manager as JSON, one object per
// line, and decodes them. Package journal keeps such lines in a file, and package
// control sends them to clients.
//
//	{"time":"2026-11-25T07:00:00Z","pid":41,"type":"exit","data":{"slot":0,…}}
//
// It links nothing that takes time when a process starts.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/plain"
)

// A Record is an event with its time and the process that has written it.
type Record struct {
	// Time is when the event happened. Zero means the time of the Write.
	Time time.Time

	// Event is a prefork.Event, or a type of this package. Other types cannot be
	// written.
	Event fmt.Stringer

	// PID is the process that has written the record. A journal sets it. Zero
	// means unknown. During an upgrade two processes write.
	PID int

	// Pool is the Name of the Manager, if records of several are written to one
	// place. It may be empty.
	Pool string
}

// String returns the time and the event on one line.
func (r Record) String() string {
	return fmt.Sprintf("%s %s", r.Time.Format(time.RFC3339Nano), r.Text())
}

// Text returns the event on one line, after the name of its pool if it has one.
func (r Record) Text() string {
	text := fmt.Sprint(r.Event)
	if r.Pool != "" {
		text = r.Pool + ": " + text
	}
	return plain.Line(text)
}

type (
	// Started is written when a manager opens the journal. It is repeated after a
	// Rotated if the manager has had no event yet.
	Started struct {
		PID int

		// Successor is true for the successor of an upgrade. The previous
		// manager remains active until the TookOver.
		Successor bool
	}

	// TookOver is written when a successor has taken over. State is its own
	// state.
	TookOver struct{ State State }

	// Ended is written when a manager closes the journal.
	Ended struct{ PID int }

	// Rotated contains the state of the manager. It is the first record of
	// each file except the oldest. Within a file it follows records that
	// were lost, for example because the disk was full.
	Rotated struct {
		// Reason is one of ReasonSize, ReasonAge, ReasonRequest, ReasonMoved,
		// ReasonTruncated, ReasonDamaged and ReasonGap.
		Reason string
		State  State
	}

	// MoreWorkers follows a Rotated or TookOver that has more workers than
	// fit in one line.
	MoreWorkers struct{ Workers []Worker }

	// Warning is a message of the program that writes the journal.
	Warning struct{ Component, Error string }

	// ProgramAdded is written by prefork watch when a service has come: its program
	// was put into the directory. Service is its name, or "NAME/log" of a logger.
	ProgramAdded struct{ Service, Kind string }

	// ProgramChanged is written when the file of a program has changed, which is
	// stopped and started again.
	ProgramChanged struct{ Service string }

	// ProgramRemoved is written when a service has gone. Reason may be empty.
	ProgramRemoved struct{ Service, Reason string }

	// PassedOver is written for a name in the directory that is no service.
	PassedOver struct{ Name, Reason string }

	// GaveUp is written when a service is not started again, because its finish has
	// exited with 125.
	GaveUp struct{ Service, Reason string }

	// Unknown is a record whose type this version does not know.
	Unknown struct {
		Type string
		Data []byte // as in the file
	}
)

func (e Started) String() string {
	if e.Successor {
		return fmt.Sprintf("manager %d started as a successor", e.PID)
	}
	return fmt.Sprintf("manager %d started", e.PID)
}

func (e TookOver) String() string { return fmt.Sprintf("manager %d took over", e.State.PID) }

func (e Ended) String() string { return fmt.Sprintf("manager %d ended", e.PID) }

func (e Rotated) String() string {
	switch e.Reason {
	case ReasonGap:
		return fmt.Sprintf("journal continued after records that could not be written; %v", e.State)
	case ReasonTruncated:
		return fmt.Sprintf("journal continued after another process has truncated it; %v", e.State)
	case ReasonDamaged:
		return fmt.Sprintf("journal continued after damaged lines; %v", e.State)
	}
	return fmt.Sprintf("journal continued in a new file (%s); %v", plain.Line(e.Reason), e.State)
}

func (e MoreWorkers) String() string { return fmt.Sprintf("%d more workers", len(e.Workers)) }

func (e Warning) String() string { return plain.Line(e.Component + ": " + e.Error) }

func (e ProgramAdded) String() string {
	return plain.Line(fmt.Sprintf("%s added: %s", e.Kind, e.Service))
}

func (e ProgramChanged) String() string { return plain.Line("program changed: " + e.Service) }

func (e ProgramRemoved) String() string {
	return plain.Line("service removed: " + e.Service + because(e.Reason))
}

func (e PassedOver) String() string { return plain.Line("passed over: " + e.Name + because(e.Reason)) }

func (e GaveUp) String() string {
	return plain.Line("service gave up: " + e.Service + because(e.Reason))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func (e Unknown) String() string { return plain.Line(e.Type + ": " + string(e.Data)) }

// A State describes the last active manager of a journal. During an
// upgrade the successor becomes the active manager when it takes over. Records
// that the other manager writes about its own workers do not count.
type State struct {
	Started time.Time // zero if no manager has started
	PID     int       // of the manager
	Ended   time.Time // zero if the manager was killed, or is running

	// Workers are the running workers, or those that ran when the manager was
	// killed. They are in the order of their spawn.
	Workers []Worker
}

// A Worker is a worker of a State.
type Worker struct {
	Pool string // of its Manager, see Record.Pool
	prefork.WorkerInfo
}

// String returns a description for people.
func (s State) String() string {
	started := s.Started.Format(time.RFC3339)
	switch {
	case s.Started.IsZero():
		return "no manager has started"
	case !s.Ended.IsZero():
		return fmt.Sprintf("manager %d started %s and ended %s", s.PID, started, s.Ended.Format(time.RFC3339))
	}
	return fmt.Sprintf("manager %d started %s, and has %d workers", s.PID, started, len(s.Workers))
}

// Reasons of a Rotated. A journal may have others, of a later version.
const (
	ReasonSize      = "size"      // Config.MaxSize of the journal
	ReasonAge       = "age"       // its Config.MaxAge
	ReasonRequest   = "request"   // Journal.Rotate
	ReasonMoved     = "moved"     // another process has moved or removed the file, or its directory
	ReasonTruncated = "truncated" // another process has truncated the file
	ReasonDamaged   = "damaged"   // Open has found lines that are not records
	ReasonGap       = "gap"       // earlier records could not be written
)

const (
	// MaxLine bounds the bytes of a line. Records are shorter: their error texts
	// are truncated.
	MaxLine = 1 << 20

	// maxText bounds the text of an error.
	maxText = 32 << 10

	// workersPerLine bounds the workers in one line, so that the line is well
	// below MaxLine whatever their content.
	workersPerLine = 1000
)

// frame is the JSON object of a line.
type frame struct {
	Time time.Time       `json:"time"`
	PID  int             `json:"pid,omitempty"`
	Pool string          `json:"pool,omitempty"`
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// Line returns the record as a line with its newline.
func (r Record) Line() ([]byte, error) {
	if u, ok := r.Event.(Unknown); ok {
		return frame{r.Time.UTC(), r.PID, truncate(r.Pool), u.Type, u.Data}.line()
	}
	name, data, err := Encode(r.Event)
	if err != nil {
		return nil, err
	}
	return frame{r.Time.UTC(), r.PID, truncate(r.Pool), name, data}.line()
}

// Encode returns the name of an event's type and its content as JSON. The event is
// a prefork.Event or a type of this package, except Unknown.
func Encode(event fmt.Stringer) (name string, data []byte, err error) {
	for _, typ := range recordTypes {
		content, ok := typ.encode(event)
		if !ok {
			continue
		}
		if data, err = json.Marshal(content); err != nil {
			return "", nil, fmt.Errorf("record of type %s: %w", typ.name, err)
		}
		return typ.name, data, nil
	}
	return "", nil, fmt.Errorf("events of type %T cannot be encoded: use a prefork.Event or a type of this package", event)
}

// Decode returns the event of a type's name and a content. It is an Unknown if this
// version does not know the name.
func Decode(name string, data []byte) (fmt.Stringer, error) {
	for _, typ := range recordTypes {
		if typ.name != name {
			continue
		}
		event, err := typ.decode(data)
		if err != nil {
			return nil, fmt.Errorf("record of type %s: %w", name, err)
		}
		return event, nil
	}
	if data == nil {
		data = []byte("null")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, err
	}
	return Unknown{name, compact.Bytes()}, nil
}

// Lines returns the record as a journal has it: workers that do not fit in the
// line follow as MoreWorkers.
func (r Record) Lines() ([]byte, error) {
	var more []Worker
	split := func(s State) State {
		n := min(len(s.Workers), workersPerLine)
		s.Workers, more = s.Workers[:n], s.Workers[n:]
		return s
	}
	switch e := r.Event.(type) {
	case Rotated:
		r.Event = Rotated{e.Reason, split(e.State)}
	case TookOver:
		r.Event = TookOver{split(e.State)}
	}
	lines, err := r.Line()
	for part := range slices.Chunk(more, workersPerLine) {
		line, partErr := Record{Time: r.Time, Event: MoreWorkers{part}, PID: r.PID}.Line()
		lines, err = append(lines, line...), errors.Join(err, partErr)
	}
	return lines, err
}

func (f frame) line() ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // the data of an Unknown must not change
	err := e.Encode(f)
	if err == nil && line.Len() > MaxLine {
		err = fmt.Errorf("record of type %s has %d bytes: the maximum is %d", f.Type, line.Len()-1, MaxLine-1)
	}
	return line.Bytes(), err
}

// Parse parses a line without its newline.
func Parse(line []byte) (Record, error) {
	var f frame
	if err := json.Unmarshal(line, &f); err != nil {
		return Record{}, err
	}
	switch {
	case f.Time.IsZero():
		return Record{}, errors.New("record has no time")
	case f.Type == "":
		return Record{}, errors.New("record has no type")
	}
	event, err := Decode(f.Type, f.Data)
	if err != nil {
		return Record{}, err
	}
	return Record{f.Time, event, f.PID, f.Pool}, nil
}

func truncate(s string) string {
	if len(s) > maxText {
		return s[:maxText] + " …"
	}
	return s
}
