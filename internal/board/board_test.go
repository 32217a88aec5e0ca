//go:build unix

package board

import (
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/scoreboard"
)

// pretended is a worker whose program is the test.
type pretended struct {
	*scoreboard.Writer
	record   *Worker
	notified int // notifications that it has sent
}

// workers returns n idle workers with the IDs 1 to n.
func workers(t testing.TB, n int) (all []*pretended) {
	t.Helper()
	for id := 1; id <= n; id++ {
		descriptor, err := fd.AnonymousFile()
		if err != nil {
			t.Fatal(err)
		}
		cell, err := scoreboard.New(descriptor)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cell.Close)
		w := &pretended{record: &Worker{ID: id, Cell: cell}}
		if w.Writer, err = scoreboard.Open(descriptor, func() { w.notified++ }); err != nil {
			t.Fatal(err)
		}
		fd.Close(descriptor) // the memory stays mapped
		all = append(all, w)
	}
	return all
}

func records(all []*pretended) (records []*Worker) {
	for _, w := range all {
		records = append(records, w.record)
	}
	return records
}

func notifications(all []*pretended) (n int) {
	for _, w := range all {
		n += w.notified
	}
	return n
}

// read reads the board at now, if it is due.
func read(b *Board, now pool.Time, all []*pretended) []Event {
	if !b.Begin(now, len(all)) {
		return nil
	}
	return b.Look(now, records(all))
}

func want(t *testing.T, when string, got []Event, want ...Event) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", when, got, want)
	}
}

// Each change between busy and idle is reported once.
func TestBusyAndIdle(t *testing.T) {
	all := workers(t, 3)
	b := New(Config{MinSpare: 1, MaxSpare: math.MaxInt})
	look := func() []Event { b.Changed(); return read(b, 0, all) }
	want(t, "at first", look())
	all[0].Set('R')
	all[2].Set('W')
	want(t, "two are busy", look(), Event{Busy, 1}, Event{Busy, 3})
	all[0].Set('W') // another byte for busy
	want(t, "no change", look())
	all[0].Set(scoreboard.Idle)
	all[1].Set(scoreboard.Idle) // as before its first status
	want(t, "one is idle again", look(), Event{Idle, 1})
}

// The workers notify the manager when fewer than MinSpare or more than MaxSpare
// of them are idle, and not before.
func TestNotifications(t *testing.T) {
	all := workers(t, 4)
	b := New(Config{MinSpare: 2, MaxSpare: 3})
	b.Changed()
	read(b, 0, all)
	for _, w := range all {
		w.notified = 0
	}
	for _, w := range all[:3] {
		w.Set('R')
	}
	if notifications(all) == 0 {
		t.Error("only one of four workers is idle, and none has sent a notification")
	}
	b.Notified()
	want(t, "after the notification", read(b, time.Second, all), Event{Busy, 1}, Event{Busy, 2}, Event{Busy, 3})
	for _, w := range all {
		w.notified = 0
		w.Set(scoreboard.Idle)
	}
	if notifications(all) == 0 {
		t.Error("four workers are idle, and none has sent a notification")
	}
}

// A board that nothing has changed is not read, and neither is one that is not
// needed.
func TestBegin(t *testing.T) {
	for _, test := range []struct {
		name         string
		cfg          Config
		reads        bool
		active       bool
		changed, ask bool // Changed is called; Begin must return true
	}{
		{"sizing, unchanged", Config{MinSpare: 1}, true, true, false, false},
		{"sizing, changed", Config{MinSpare: 1}, true, true, true, true},
		{"stuck, unchanged", Config{Stuck: time.Second}, true, true, false, false},
		{"stuck, changed", Config{Stuck: time.Second}, true, true, true, true},
		{"memory only", Config{Memory: true}, false, true, true, false},
		{"nothing", Config{}, false, false, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := New(test.cfg)
			if b.reads() != test.reads || b.Active() != test.active {
				t.Errorf("reads %t, active %t", b.reads(), b.Active())
			}
			if test.changed {
				b.Changed()
			}
			next := pool.Never
			if test.ask {
				next = 0
			}
			if got := b.NextReading(10); got != next {
				t.Errorf("next reading at %v, want %v", got, next)
			}
			if got := b.Begin(0, 10); got != test.ask {
				t.Errorf("Begin = %t", got)
			}
			if b.Begin(0, 10) || b.NextReading(10) != pool.Never || b.NextScan() != pool.Never {
				t.Error("due again without a change")
			}
		})
	}
}

// Workers that notify the manager without end get a bounded share of its time,
// whatever their number. A burst after a quiet time is handled at once.
func TestBudget(t *testing.T) {
	for _, n := range []int{1, 100, 1000, 10_000} {
		b := New(Config{MinSpare: 1})
		perReading := max(time.Millisecond, time.Duration(n)*workerCost)
		readAt := func(now pool.Time) bool {
			b.Notified()
			if next := b.NextReading(n); (next <= now) != (b.affordable(n) <= now) {
				t.Fatalf("next reading at %v, affordable at %v", next, b.affordable(n))
			}
			return b.Begin(now, n)
		}
		quiet := time.Hour
		burst := 0
		for readAt(quiet) {
			burst++
		}
		if burst != readingsAhead {
			t.Errorf("%d workers: %d readings at once, want %d", n, burst, readingsAhead)
		}
		readings := 0
		const second, step = time.Second, 100 * time.Microsecond
		for now := quiet + step; now <= quiet+second; now += step {
			if readAt(now) {
				readings++
			}
		}
		if most := int(second / perReading); readings > most+1 || readings < most-1 {
			t.Errorf("%d workers: %d readings in a second, want %d", n, readings, most)
		}
	}
}

// Readings for workers that come and go cost less than those that workers ask
// for.
func TestChangesCostLess(t *testing.T) {
	b := New(Config{MinSpare: 1})
	n := 0
	for b.Changed(); b.Begin(time.Hour, 1); b.Changed() {
		n++
	}
	if least := readingsAhead * int(notifiedCost/workerCost) / 2; n < least {
		t.Errorf("%d readings at once, want at least %d", n, least)
	}
}

const stuckAfter = 800 * time.Millisecond // scanned each 100 ms

// stuckBoard returns a board and a busy worker that it has seen busy at 0.
func stuckBoard(t *testing.T) (*Board, []*pretended) {
	t.Helper()
	all := workers(t, 2)
	b := New(Config{Stuck: stuckAfter})
	b.Changed()
	want(t, "idle", read(b, 0, all))
	if b.NextScan() != pool.Never {
		t.Fatalf("a scan at %v, and no worker is busy", b.NextScan())
	}
	all[1].Set('R')
	if notifications(all) != 1 {
		t.Fatal("the first busy worker must start the scan")
	}
	b.Notified()
	want(t, "busy", read(b, 0, all), Event{Busy, 2})
	return b, all
}

// scan scans the board at each time it asks for, up to and including to, and
// returns the reported events and their time.
func scan(t *testing.T, b *Board, all []*pretended, to pool.Time) (events []Event, at pool.Time) {
	t.Helper()
	for len(events) == 0 && b.NextScan() != pool.Never && b.NextScan() <= to {
		at = b.NextScan()
		if !b.Begin(at, len(all)) {
			t.Fatalf("no reading at %v", at)
		}
		events = b.Look(at, records(all))
	}
	return events, at
}

func TestStuck(t *testing.T) {
	b, all := stuckBoard(t)
	events, at := scan(t, b, all, time.Hour)
	want(t, "no heartbeat", events, Event{Stuck, 2})
	if at < stuckAfter || at > stuckAfter+stuckAfter/8 {
		t.Errorf("reported at %v, want %v", at, stuckAfter)
	}
}

// A heartbeat, a request and a status are signs of life, and an idle worker
// needs none.
func TestNotStuck(t *testing.T) {
	for name, sign := range map[string]func(*pretended){
		"heartbeat": func(w *pretended) { w.Heartbeat() },
		"served":    func(w *pretended) { w.Served(1) },
		"status":    func(w *pretended) { w.Set('W') },
		"pause":     func(w *pretended) { w.record.Paused = true },
	} {
		t.Run(name, func(t *testing.T) {
			b, all := stuckBoard(t)
			for now := stuckAfter / 2; now < 10*stuckAfter; now += stuckAfter / 2 {
				sign(all[1])
				events, _ := scan(t, b, all, now)
				want(t, now.String(), events)
			}
			all[1].record.Paused = false
			all[1].Set(scoreboard.Idle)
			events, _ := scan(t, b, all, 20*stuckAfter)
			want(t, "idle", events, Event{Idle, 2})
			if b.NextScan() != pool.Never {
				t.Errorf("a scan at %v, and no worker is busy", b.NextScan())
			}
		})
	}
}

// A manager that was held up starts over, since it has not seen the heartbeats
// of that time.
func TestStuckAfterHoldUp(t *testing.T) {
	b, all := stuckBoard(t)
	b.Changed()
	late := 5 * stuckAfter
	want(t, "held up", read(b, late, all))
	events, at := scan(t, b, all, time.Hour)
	want(t, "no heartbeat since", events, Event{Stuck, 2})
	if at < late+stuckAfter {
		t.Errorf("reported %v after the manager was held up, want %v", at-late, stuckAfter)
	}
}

// Workers whose memory exceeds their limit are reported, each 2 s.
func TestCheckMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("measured only on Linux")
	}
	all := []*Worker{
		{ID: 1, PID: os.Getpid(), MaxMemory: 1},
		{ID: 2, PID: os.Getpid(), MaxMemory: math.MaxInt64},
		{ID: 3, PID: 1 << 30, MaxMemory: 1}, // no such process
	}
	b := New(Config{Memory: true})
	for _, step := range []struct {
		now, next pool.Time
		want      []Event
	}{
		{0, memoryPeriod, []Event{{TooBig, 1}}},
		{memoryPeriod - 1, memoryPeriod, nil},
		{memoryPeriod, 2 * memoryPeriod, []Event{{TooBig, 1}}},
		{10 * memoryPeriod, 11 * memoryPeriod, []Event{{TooBig, 1}}},
	} {
		events, next := b.CheckMemory(step.now, slices.Values(all))
		want(t, step.now.String(), events, step.want...)
		if next != step.next {
			t.Errorf("at %v: next at %v, want %v", step.now, next, step.next)
		}
	}
	measured := func(func(*Worker) bool) { t.Error("measured without Config.Memory") }
	if events, next := New(Config{Stuck: time.Second}).CheckMemory(0, measured); events != nil || next != pool.Never {
		t.Errorf("%v, next at %v", events, next)
	}
}

// A worker that is gone does not stay mapped by the board.
func TestLookKeepsNoCells(t *testing.T) {
	all := workers(t, 3)
	b := New(Config{MinSpare: 1, MaxSpare: 2})
	b.Changed()
	read(b, 0, all)
	for _, c := range b.cells {
		if c != nil {
			t.Error("the board keeps a cell")
		}
	}
}

// BenchmarkLook measures what the manager pays for a notification, without its
// wake-up.
func BenchmarkLook(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			all := workers(b, n)
			list := records(all)
			board := New(Config{MinSpare: 5, MaxSpare: n})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				all[i/2%n].Set("R_"[i&1])
				board.Look(0, list)
			}
		})
	}
}

// Config.Recycle documents the period of measurements. The costs bound the share
// of a CPU that reading the board takes.
func TestConstants(t *testing.T) {
	if memoryPeriod != 2*time.Second {
		t.Errorf("memory is measured every %v, want 2 s", memoryPeriod)
	}
	if notifiedCost != time.Millisecond || workerCost != 10*time.Microsecond || readingsAhead != 10 {
		t.Errorf("costs %v and %v, %d readings ahead; want 1 ms, 10 µs and 10", notifiedCost, workerCost, readingsAhead)
	}
}
