package journal

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

	// Event is a prefork.Event, or one of Started, TookOver, Ended, Rotated,
	// MoreWorkers, Warning and Unknown. Other types cannot be written.
	Event fmt.Stringer

	// PID is the process that has written the record. A Journal sets it. Zero
	// means unknown. During an upgrade two processes write.
	PID int
}

// String returns the time and the event on one line.
func (r Record) String() string {
	return fmt.Sprintf("%s %s", r.Time.Format(time.RFC3339Nano), plain.Line(fmt.Sprint(r.Event)))
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
		// Reason is "size", "age", "request" (Journal.Rotate), "moved"
		// (another process has moved or removed the file, or its directory),
		// "truncated" (another process has truncated the file), "damaged" (Open
		// has found lines that are not records) or "gap" (earlier records could
		// not be written).
		Reason string
		State  State
	}

	// MoreWorkers follows a Rotated or TookOver that has more workers than
	// fit in one line.
	MoreWorkers struct{ Workers []prefork.WorkerInfo }

	// Warning is a message of the program that writes the journal.
	Warning struct{ Component, Error string }

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
	case reasonGap:
		return fmt.Sprintf("journal continued after records that could not be written; %v", e.State)
	case reasonTruncated:
		return fmt.Sprintf("journal continued after another process has truncated it; %v", e.State)
	case reasonDamaged:
		return fmt.Sprintf("journal continued after damaged lines; %v", e.State)
	}
	return fmt.Sprintf("journal continued in a new file (%s); %v", plain.Line(e.Reason), e.State)
}

func (e MoreWorkers) String() string { return fmt.Sprintf("%d more workers", len(e.Workers)) }

func (e Warning) String() string { return plain.Line(e.Component + ": " + e.Error) }

func (e Unknown) String() string { return plain.Line(e.Type + ": " + string(e.Data)) }

// Reasons of a Rotated.
const (
	reasonSize      = "size"
	reasonAge       = "age"
	reasonRequest   = "request"
	reasonMoved     = "moved"
	reasonTruncated = "truncated"
	reasonDamaged   = "damaged"
	reasonGap       = "gap"
)

const (
	// maxLine bounds the memory that a line of a damaged file uses. Records
	// are shorter: their error texts are truncated.
	maxLine = 1 << 20

	// maxText bounds the text of an error.
	maxText = 32 << 10

	// workersPerLine bounds the workers in one line, so that the line is well
	// below maxLine whatever their content.
	workersPerLine = 1000
)

// frame is the JSON object of a line.
type frame struct {
	Time time.Time       `json:"time"`
	PID  int             `json:"pid,omitempty"`
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// line returns the record as a line with its newline.
func (r Record) line() ([]byte, error) {
	if u, ok := r.Event.(Unknown); ok {
		return frame{r.Time.UTC(), r.PID, u.Type, u.Data}.line()
	}
	for _, typ := range recordTypes {
		content, ok := typ.encode(r.Event)
		if !ok {
			continue
		}
		data, err := json.Marshal(content)
		if err != nil {
			return nil, fmt.Errorf("record of type %s: %w", typ.name, err)
		}
		return frame{r.Time.UTC(), r.PID, typ.name, data}.line()
	}
	return nil, fmt.Errorf("events of type %T cannot be written: use a prefork.Event or a type of this package", r.Event)
}

// lines returns the record as a Journal writes it: workers that do not fit in
// the line follow as MoreWorkers.
func (r Record) lines() ([]byte, error) {
	var more []prefork.WorkerInfo
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
	lines, err := r.line()
	for part := range slices.Chunk(more, workersPerLine) {
		line, partErr := Record{r.Time, MoreWorkers{part}, r.PID}.line()
		lines, err = append(lines, line...), errors.Join(err, partErr)
	}
	return lines, err
}

func (f frame) line() ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // the data of an Unknown must not change
	err := e.Encode(f)
	if err == nil && line.Len() > maxLine {
		err = fmt.Errorf("record of type %s has %d bytes: the maximum is %d", f.Type, line.Len()-1, maxLine-1)
	}
	return line.Bytes(), err
}

// parseLine parses a line without its newline.
func parseLine(line []byte) (Record, error) {
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
	for _, typ := range recordTypes {
		if typ.name != f.Type {
			continue
		}
		event, err := typ.decode(f.Data)
		if err != nil {
			return Record{}, fmt.Errorf("record of type %s: %w", f.Type, err)
		}
		return Record{f.Time, event, f.PID}, nil
	}
	if f.Data == nil {
		f.Data = json.RawMessage("null")
	}
	var data bytes.Buffer
	if err := json.Compact(&data, f.Data); err != nil {
		return Record{}, err
	}
	return Record{f.Time, Unknown{f.Type, data.Bytes()}, f.PID}, nil
}

func truncate(s string) string {
	if len(s) > maxText {
		return s[:maxText] + " …"
	}
	return s
}
