package journal

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Sink takes records: a Journal, and what NewWriter, NewHuman and Multi make. Any goroutine may call it.
type Sink interface {
	ID() string // names it, in messages
	Write(Record) error
}

// NewWriter makes a Sink that writes lines of JSON to w, each in one call. A record whose Time is zero gets that of the call.
func NewWriter(id string, w io.Writer) Sink { return &writer{id: id, w: w, line: Record.line} }

// NewHuman makes a Sink that writes lines for people to w, each in one call: the local time, and what the event says of
// itself. A record whose Time is zero gets that of the call.
func NewHuman(id string, w io.Writer) Sink { return &writer{id: id, w: w, line: human} }

type writer struct {
	id   string
	line func(Record) ([]byte, error)
	mu   sync.Mutex
	w    io.Writer
}

func (w *writer) ID() string { return w.id }

func (w *writer) Write(rec Record) error {
	if rec.Time.IsZero() {
		rec.Time = time.Now()
	}
	line, err := w.line(rec)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err = w.w.Write(line); err != nil {
		err = fmt.Errorf("journal %s: %w", w.id, err)
	}
	return err
}

func human(rec Record) ([]byte, error) {
	if rec.Event == nil {
		return nil, errors.New("a record without an event")
	}
	text := strings.ReplaceAll(rec.Event.String(), "\n", " ")
	return fmt.Appendf(nil, "%s %s\n", rec.Time.Local().Format("2006-01-02 15:04:05.000"), text), nil
}

// Multi makes one Sink of several: each gets every record, also when one before it fails. The error is all of theirs, and
// the ID too, with "+" between them.
func Multi(sinks ...Sink) Sink { return multi(sinks) }

type multi []Sink

func (m multi) ID() string {
	ids := make([]string, len(m))
	for i, s := range m {
		ids[i] = s.ID()
	}
	return strings.Join(ids, "+")
}

func (m multi) Write(rec Record) error {
	var errs []error
	for _, s := range m {
		if err := s.Write(rec); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
