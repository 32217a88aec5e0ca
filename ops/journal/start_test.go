//go:build unix

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
)

// A failed start does not hide the manager that ran before it (40).
func TestFailedStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.journal")
	previous := func() (State, error) { return PreviousState(path) }
	if err := openJournal(t, path, Config{}).Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := previous(); err != nil || s.PID != os.Getpid() || s.Ended.IsZero() {
		t.Errorf("a failed start without another: %v, %v", s, err)
	}
	// A manager that was killed.
	at := func(pid int, event fmt.Stringer) []byte {
		line, err := Record{Time: moment, Event: event, PID: pid}.Line()
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	ready := prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, Ordinal: 1, State: prefork.StateReady}}
	ran := slices.Concat(at(1, Started{PID: 1}), at(1, ready))
	check := func(when string, pid int) {
		t.Helper()
		if s, err := previous(); err != nil || s.PID != pid || !s.Ended.IsZero() || len(s.Workers) != 1 || s.Workers[0].PID != 7 {
			t.Errorf("%s: %+v, %v", when, s, err)
		}
	}
	for name, failed := range map[string][]byte{
		"ended":  slices.Concat(at(2, Started{PID: 2}), at(2, warning("a", "b")), at(2, Ended{PID: 2})),
		"killed": at(2, Started{PID: 2}),
		"no config": slices.Concat(at(2, Started{PID: 2}), at(2, prefork.StartedEvent{}), at(2, prefork.NoteEvent{Text: "x"}),
			at(2, prefork.EndedEvent{Err: errors.New("Reload")}), at(2, Ended{PID: 2})),
		"same pid":    slices.Concat(at(1, Started{PID: 1}), at(1, Ended{PID: 1})),
		"two":         slices.Concat(at(2, Started{PID: 2}), at(3, Started{PID: 3}), at(3, Ended{PID: 3})),
		"unknown pid": slices.Concat(at(0, Started{PID: 2}), at(0, Ended{PID: 2})),
		"successor":   slices.Concat(at(2, Started{PID: 2}), at(4, Started{PID: 4, Successor: true}), at(4, ready)),
		"used pid": slices.Concat(at(4, Started{PID: 4}), at(2, Started{PID: 2}),
			at(4, Started{PID: 4, Successor: true}), at(4, ready)),
		"none": nil,
	} {
		os.WriteFile(path, slices.Concat(at(9, Started{PID: 9}), at(9, ready), ran, failed), 0o600)
		check(name, 1)
		j := openJournal(t, path, Config{KeepFiles: -1})
		if s := j.Previous(); s.PID != 1 || len(s.Workers) != 1 {
			t.Errorf("%s: previous %+v", name, s)
		}
		check(name+", open", 1)
		// All other ways by which a state is written.
		if err := j.Rotate(); err != nil {
			t.Error(err)
		}
		check(name+", rotated", 1)
		os.Truncate(path, 0)
		writeEvents(t, j, warning("a", "b"))
		check(name+", truncated", 1)
		os.Rename(path, path+".1")
		writeEvents(t, j, warning("a", "b"))
		check(name+", moved", 1)
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		check(name+", closed", 1)
		j = openJournal(t, path, Config{KeepFiles: -1})
		if err := j.Rotate(); err != nil {
			t.Error(err)
		}
		writeEvents(t, j, prefork.ResizeEvent{From: 1, To: 2})
		if s, err := previous(); err != nil || s.PID != os.Getpid() || len(s.Workers) != 0 || s.Started.Before(moment) {
			t.Errorf("%s, after an event: %+v, %v", name, s, err)
		}
		j.Close()
		if s, err := previous(); err != nil || s.PID != os.Getpid() || s.Ended.IsZero() {
			t.Errorf("%s, after an event and Close: %+v, %v", name, s, err)
		}
		names, _ := rotatedFiles(path)
		for _, name := range names {
			os.Remove(name)
		}
	}
}

// Text for people has no characters that control a terminal.
func TestControlCharacters(t *testing.T) {
	evil := errors.New("\x1b[2Jcleared\nand \r\x07rung \u009b31m")
	var text bytes.Buffer
	sink := NewTextSink("", &text)
	var strs []string
	for _, event := range []fmt.Stringer{
		prefork.ReloadFailedEvent{Err: evil}, prefork.RollFailedEvent{Err: evil}, prefork.UpgradeFailedEvent{Err: evil},
		prefork.SpawnFailedEvent{Err: &prefork.SpawnError{Err: evil}}, prefork.SpawnFailedEvent{Err: &prefork.SpawnError{Err: evil}, Retry: 1},
		warning("a\x1b", evil.Error()), Unknown{Type: evil.Error(), Data: []byte(evil.Error())}, Rotated{Reason: evil.Error()},
		prefork.SignalEvent{Origin: evil.Error()},
	} {
		writeEvents(t, sink, event)
		strs = append(strs, event.String(), Record{Event: event}.String())
	}
	if n := strings.Count(text.String(), "\n"); n != 9 {
		t.Errorf("%d lines", n)
	}
	for _, s := range append(strs, strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")...) {
		for _, r := range s {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Errorf("%q", s)
				break
			}
		}
		if !strings.Contains(s, `\x1b[2J`) {
			t.Errorf("%q", s)
		}
	}
}
