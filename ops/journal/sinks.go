package journal

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// A Sink receives records. Journal is a Sink; NewJSONSink, NewTextSink and
// MultiSink return others. A Sink must be safe for concurrent use.
type Sink interface {
	// ID names the Sink in error messages. It should be unique.
	ID() string

	// Write writes a record. If rec.Time is zero, the time of the call is
	// used.
	Write(rec Record) error
}

// NewJSONSink returns a Sink that writes each record to w as a line of JSON, as
// a Journal does. It calls w.Write once for each record, by one goroutine at a
// time. Unlike a Journal it does not set Record.PID.
func NewJSONSink(id string, w io.Writer) Sink {
	return &lineSink{id: id, w: w, format: Record.Line}
}

// NewTextSink returns a Sink that writes each record to w as a line for people:
// the local time and the String of the event, with control characters escaped. It
// calls w.Write once for each
// record, by one goroutine at a time.
func NewTextSink(id string, w io.Writer) Sink {
	return &lineSink{id: id, w: w, format: textLine}
}

type lineSink struct {
	id     string
	format func(Record) ([]byte, error)

	mu sync.Mutex
	w  io.Writer
}

func (s *lineSink) ID() string { return s.id }

func (s *lineSink) Write(rec Record) error {
	if rec.Time.IsZero() {
		rec.Time = time.Now()
	}
	line, err := s.format(rec)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err = s.w.Write(line); err != nil {
		err = fmt.Errorf("journal %s: %w", s.id, err)
	}
	return err
}

func textLine(rec Record) ([]byte, error) {
	if rec.Event == nil {
		return nil, errors.New("record has no event: set Record.Event")
	}
	return fmt.Appendf(nil, "%s %s\n", rec.Time.Local().Format("2006-01-02 15:04:05.000"), rec.Text()), nil
}

// MultiSink returns a Sink that writes each record to all sinks, also if one of
// them returns an error. Its Write returns the joined errors, and its ID is the
// IDs joined by "+".
func MultiSink(sinks ...Sink) Sink { return multiSink(sinks) }

type multiSink []Sink

func (m multiSink) ID() string {
	ids := make([]string, len(m))
	for i, s := range m {
		ids[i] = s.ID()
	}
	return strings.Join(ids, "+")
}

func (m multiSink) Write(rec Record) error {
	var errs []error
	for _, s := range m {
		if err := s.Write(rec); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
