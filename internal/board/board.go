// Package board reads the status that workers publish, and reports which workers
// became busy, idle, stuck or too big.
package board

import (
	"time"

	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/scoreboard"
)

// Config selects the events that a Board reports.
type Config struct {
	MinSpare, MaxSpare int           // sizing by load; a MinSpare of 0 turns it off
	Stuck              time.Duration // busy for this long without a heartbeat; 0 means never
	Memory             bool          // report workers that use more than their MaxMemory
}

// Worker is the board's record of one worker.
type Worker struct {
	ID, PID   int
	Cell      *scoreboard.Cell // nil for a Command
	MaxMemory int64
	Paused    bool

	busy  bool // as last reported
	stall scoreboard.Stall
}

// Kind is the kind of an Event.
type Kind uint8

const (
	Busy Kind = iota
	Idle
	Stuck
	TooBig
)

// Event is a change of one worker.
type Event struct {
	Kind Kind
	ID   int
}

// The manager reads the board when a worker notifies it and when workers come
// and go. It pays for each reading from a budget that grows with time, so that
// workers that notify it without end cost some hundredths of a CPU whatever
// their number. After a quiet period, readingsAhead notifications are handled
// at once: a burst of load does not wait.
const (
	notifiedCost  = time.Millisecond      // of a reading that a worker asked for
	workerCost    = 10 * time.Microsecond // of any reading, per worker: 30 times that of a cell
	readingsAhead = 10
)

// Board belongs to the loop.
type Board struct {
	cfg             Config
	due             bool // a worker came, went, changed its state or notified the manager
	notified        bool
	paidTo          pool.Time           // readings so far are paid for up to this time
	notifier        scoreboard.Notifier // asks workers to notify the manager
	nextScan        pool.Time           // for stuck workers; Never while no worker is busy
	nextMeasurement pool.Time           // of memory
	cells           []*scoreboard.Cell  // reused by each scan
}

// New returns a Board.
func New(cfg Config) *Board { return &Board{cfg: cfg, nextScan: pool.Never} }

// reads reports whether anything needs the workers' cells.
func (b *Board) reads() bool { return b.cfg.MinSpare > 0 || b.cfg.Stuck > 0 }

// Active reports whether Look and CheckMemory can return any event.
func (b *Board) Active() bool { return b.reads() || b.cfg.Memory }

// Changed marks the board for reading: a worker came, went or changed its
// state.
func (b *Board) Changed() { b.due = true }

// Notified marks the board for reading: a worker has sent a notification.
func (b *Board) Notified() { b.due, b.notified = true, true }

// NextReading returns when a board that is due may be read; Never if it is not
// due.
func (b *Board) NextReading(workers int) pool.Time {
	if !b.due || !b.reads() {
		return pool.Never
	}
	return b.affordable(workers)
}

func (b *Board) affordable(workers int) pool.Time {
	return max(0, b.paidTo-(readingsAhead-1)*cost(workers, true))
}

// cost is the share of the manager's time that one reading may take.
func cost(workers int, notified bool) time.Duration {
	t := time.Duration(workers) * workerCost
	if notified {
		return max(t, notifiedCost)
	}
	return t
}

// Begin reports whether the board must be read now, and pays for the reading.
// The caller must then call Look.
func (b *Board) Begin(now pool.Time, workers int) bool {
	if !b.reads() {
		return false
	}
	due := b.due && b.affordable(workers) <= now
	scan := b.nextScan != pool.Never && b.nextScan <= now
	if !due && !scan {
		return false
	}
	b.paidTo = max(b.paidTo, now) + cost(workers, b.notified)
	b.due, b.notified = false, false
	return true
}

// NextScan returns when busy workers must be looked at again; Never while none
// is busy.
func (b *Board) NextScan() pool.Time {
	if !b.reads() {
		return pool.Never
	}
	return b.nextScan
}

// Look reads the cells of the given workers until nothing that matters changes
// in the course of it, and asks the workers to notify the manager of the next
// change that matters. A worker that changes without end notifies it again.
func (b *Board) Look(now pool.Time, workers []*Worker) (events []Event) {
	again := true
	for tries := 3; again && tries > 0; tries-- {
		idle, changes := b.readStatus(workers)
		events = append(events, changes...)
		events = append(events, b.findStuck(now, workers, idle)...)
		low, high := 0, len(workers)
		if b.cfg.MinSpare > 0 {
			low, high = b.cfg.MinSpare, b.cfg.MaxSpare
		}
		if b.cfg.Stuck > 0 && idle == len(workers) {
			low = len(workers) // the first busy worker starts the scan
		}
		b.cells = b.cells[:0]
		for _, w := range workers {
			b.cells = append(b.cells, w.Cell)
		}
		atNotify := b.notifier.Arm(b.cells, low, high)
		again = (atNotify < low) != (idle < low) || (atNotify > high) != (idle > high)
	}
	if again {
		b.Notified()
	}
	clear(b.cells) // cells of workers that are gone must not stay mapped
	return events
}

// readStatus returns how many workers are idle, and those that changed.
func (b *Board) readStatus(workers []*Worker) (idle int, events []Event) {
	for _, w := range workers {
		busy := w.Cell.Read().Busy()
		if !busy {
			idle++
		}
		if busy == w.busy {
			continue
		}
		w.busy = busy
		kind := Idle
		if busy {
			kind = Busy
		}
		events = append(events, Event{kind, w.ID})
	}
	return idle, events
}

// findStuck returns workers that have been busy for too long without a
// heartbeat. It scans only while a worker is busy. A manager that was suspended,
// stopped or starved has not seen the heartbeats of that time, and starts over.
func (b *Board) findStuck(now pool.Time, workers []*Worker, idle int) (events []Event) {
	timeout := b.cfg.Stuck
	if timeout <= 0 {
		b.nextScan = pool.Never
		return nil
	}
	period := max(timeout/8, time.Millisecond)
	heldUp := b.nextScan != pool.Never && now-b.nextScan > 2*period
	for _, w := range workers {
		if heldUp || w.Paused {
			w.stall = scoreboard.Stall{}
		}
		if w.stall.Observe(w.Cell.Read(), now) >= timeout {
			events = append(events, Event{Stuck, w.ID})
		}
	}
	if idle == len(workers) {
		b.nextScan = pool.Never
	} else if b.nextScan == pool.Never || b.nextScan <= now {
		b.nextScan = now + period
	}
	return events
}
