//go:build unix

package record_test

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/recordtest"
	"github.com/prefork-go/prefork/ops/record"
)

// Every type is read as it was written (C3), and its lines have the format of the
// file lines.jsonl. Lines of this format are on disks: only keys may be added.
func TestEveryType(t *testing.T) {
	format, err := os.ReadFile("testdata/lines.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.SplitAfter(string(format), "\n")
	examples := recordtest.Examples(t)
	if len(known) != len(examples)+1 {
		t.Errorf("%d lines for %d examples", len(known)-1, len(examples))
	}
	for i, event := range examples {
		want := record.Record{Time: recordtest.Moment, Event: event, PID: 1234}
		line, err := want.Line()
		if err != nil {
			t.Errorf("%T: %v", event, err)
			continue
		}
		if i < len(known) && string(line) != known[i] {
			t.Errorf("%T is written as\n%swant\n%s", event, line, known[i])
		}
		got, err := record.Parse(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %#v, %v\nwant %#v", line, got, err, want)
		}
		checkEncode(t, want, line)
	}
}

// checkEncode compares Encode, which clients of a control socket get, with the
// line of a journal.
func checkEncode(t *testing.T, r record.Record, line []byte) {
	t.Helper()
	if _, unknown := r.Event.(record.Unknown); unknown {
		return
	}
	name, data, err := record.Encode(r.Event)
	if err != nil || !bytes.HasSuffix(line, []byte(`"type":"`+name+`","data":`+string(data)+"}\n")) {
		t.Errorf("Encode(%T) = %s, %s, %v; want a part of %s", r.Event, name, data, err, line)
	}
	if name != strings.ToLower(name) || strings.ContainsAny(name, " _") {
		t.Errorf("invalid name of a type: %q", name)
	}
}

// A record of any content can be read: it has a bounded length.
func TestLongTexts(t *testing.T) {
	long := strings.Repeat("é\n", 1<<20)
	err := errors.New(long)
	for _, event := range []prefork.Event{
		prefork.ReloadFailedEvent{Err: err},
		prefork.SpawnFailedEvent{Err: &prefork.SpawnError{Err: err}},
		prefork.RollFailedEvent{Err: err},
		prefork.UpgradeFailedEvent{Err: err},
		prefork.EndedEvent{Err: err},
		prefork.NoteEvent{By: long, Text: long},
		prefork.SignalEvent{Origin: long},
		prefork.ReloadEvent{Origin: long},
	} {
		line, err := record.Record{Time: recordtest.Moment, Event: event}.Line()
		if err != nil || len(line) > record.MaxLine/2 {
			t.Errorf("%T: %d bytes, %v", event, len(line), err)
		}
	}
	for _, event := range []record.Warning{{Error: long}, {Component: long}} {
		if _, err := (record.Record{Time: recordtest.Moment, Event: event}).Line(); err != nil {
			t.Error(err)
		}
	}
}

func TestOtherTypes(t *testing.T) {
	if _, _, err := record.Encode(bytes.NewBufferString("x")); err == nil || !strings.Contains(err.Error(), "*bytes.Buffer") {
		t.Errorf("a type of another package: %v", err)
	}
	e, err := record.Decode("later", []byte(`{ "a": 1 }`))
	if u, ok := e.(record.Unknown); err != nil || !ok || u.Type != "later" || string(u.Data) != `{"a":1}` {
		t.Errorf("a later type: %v, %v", e, err)
	}
	if e, err := record.Decode("exit", []byte(`{"slot":"x"}`)); err == nil {
		t.Errorf("wrong content: %v", e)
	}
	if e, err := record.Decode("later", []byte(`{`)); err == nil {
		t.Errorf("no JSON: %v", e)
	}
	for _, line := range []string{`{"type":"x"}`, `{"time":"2026-11-25T07:00:00Z"}`, `[]`} {
		if r, err := record.Parse([]byte(line)); err == nil {
			t.Errorf("%s: %v", line, r)
		}
	}
}

// What people read has no control characters, wherever the text is from.
func TestPlainStrings(t *testing.T) {
	bad := "a\n\x1b[2Jb"
	for _, r := range []record.Record{
		{Event: record.Warning{Component: bad, Error: bad}},
		{Event: record.Unknown{Type: bad, Data: []byte(bad)}},
		{Event: record.Rotated{Reason: bad}},
		{Event: prefork.NoteEvent{By: bad, Text: bad}},
		{Time: time.Time{}},
	} {
		if s := r.String(); strings.ContainsAny(s, "\n\x1b") {
			t.Errorf("%q", s)
		}
	}
}

// A record of one of several Managers has its pool, whatever the type.
func TestPool(t *testing.T) {
	const line = `{"time":"2026-11-25T07:00:00Z","pid":7,"pool":"web/log","type":"pause","data":{}}` + "\n"
	want := record.Record{Time: recordtest.Moment.Truncate(time.Second), Event: prefork.PauseEvent{}, PID: 7, Pool: "web/log"}
	if got, err := want.Line(); err != nil || string(got) != line {
		t.Errorf("written as %s, %v; want %s", got, err, line)
	}
	got, err := record.Parse([]byte(strings.TrimSuffix(line, "\n")))
	if err != nil || got != want {
		t.Errorf("read as %v, %v", got, err)
	}
	if s := got.String(); s != "2026-11-25T07:00:00Z web/log: "+want.Event.String() {
		t.Errorf("String: %s", s)
	}
	unknown := record.Record{Time: want.Time, Event: record.Unknown{Type: "later", Data: []byte(`{}`)}, Pool: "a"}
	if line, err := unknown.Line(); err != nil || !strings.Contains(string(line), `"pool":"a"`) {
		t.Errorf("of a later type: %s, %v", line, err)
	}
	long := record.Record{Time: want.Time, Event: want.Event, Pool: strings.Repeat("x", 2<<20)}
	if line, err := long.Line(); err != nil || len(line) > record.MaxLine {
		t.Errorf("a long name: %d bytes, %v", len(line), err)
	}
}
