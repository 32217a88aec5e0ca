package prefork

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/wire"
)

// What workers publish of themselves, and what the manager makes of it: sizing by load, recycling, stuck workers.

// The bytes of a worker's status that have a meaning; any other is that of a busy worker.
const (
	StatusNone = scoreboard.None // no worker in the slot, or one that has not called SetStatus; never set by a program
	StatusIdle = scoreboard.Idle
)

// SetStatus publishes what the worker is doing: StatusIdle, or any other byte for busy, such as 'R' for reading a request.
// Sizing by load and the watch for stuck workers go by it; it counts as a Heartbeat. It costs a store into shared
// memory, and a message to the manager where that waits for this change. Worker, any goroutine; it does not block.
// StatusNone panics.
func (w *Worker) SetStatus(c byte) {
	if c == StatusNone {
		misuse("SetStatus(StatusNone): that is the status of a slot without a worker; use StatusIdle, or any other byte for busy")
	}
	self.cell.Set(c)
}

// Served counts n requests, for Recycle.MaxRequests, and counts as a Heartbeat; with 0 or less it is nothing but one.
// Worker, any goroutine; it does not block.
func (w *Worker) Served(n int) {
	total := self.cell.Served(n)
	if limit := uint64(self.marker.Requests); limit > 0 && n > 0 && total >= limit && total-uint64(n) < limit {
		self.control.Write(wire.Append(nil, wire.Retire{}))
	}
}

// Heartbeat says that the worker is not stuck; see Config.Stuck. Worker, any goroutine; it does not block.
func (w *Worker) Heartbeat() { self.cell.Beat() }

// openCell maps the memory in which this worker publishes its status.
func (p *process) openCell() error {
	if p.marker.Cell == 0 {
		return nil
	}
	defer inherit.Close(p.marker.Cell)
	w, err := scoreboard.Open(p.marker.Cell, func() {
		p.control.Write(wire.Append(nil, wire.Bell{})) // without room for it the manager has others of this worker to read
	})
	p.cell = w
	return err
}

// newCell makes the memory of a worker that is about to be spawned. The descriptor is for the worker alone.
func newCell() (cell *scoreboard.Cell, fd int, err error) {
	if fd, err = inherit.AnonymousFile(); err != nil {
		return nil, -1, err
	}
	if cell, err = scoreboard.New(fd); err != nil {
		inherit.Close(fd)
	}
	return cell, fd, err
}

// NumActiveWorkers is the number of workers that are busy: whose status is neither StatusNone nor StatusIdle. In a worker
// it is 0. Any goroutine; it does not block.
func (m *Manager) NumActiveWorkers() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.children {
		if c.cell != nil && c.cell.Read().Busy() {
			n++
		}
	}
	return n
}

// watch is what the loop knows of the workers' load.
type watch struct {
	due   bool            // the board is to be read: somebody rang, or came, or went, or is to be stopped
	rung  bool            // somebody rang
	paced pool.Time       // up to here goes what the readings so far count for
	bell  scoreboard.Bell // armed for what is to be told
	look  pool.Time       // when they will be, Never while none is busy
	weigh pool.Time       // when the memory of the workers is looked at next
}

// watches tells whether anybody wants to know what the workers do.
func (m *Manager) watches() bool { return m.cfg.MinSpareWorkers > 0 || m.cfg.Stuck.Timeout > 0 }

// The board is read when somebody rings, and when workers come and go. A ring counts for ringTime, any reading for readTime a worker; where that comes
// to more time than goes by (workers ring without end), the next waits. So it takes the manager some hundredths of a CPU,
// whatever the number of workers. After a quiet time ten rings are answered at once: a burst of load is not kept waiting.
const (
	ringTime  = time.Millisecond
	readTime  = 10 * time.Microsecond // some 30 times what reading a cell takes
	inAdvance = 10
)

// readingTime is what a reading of the board counts for.
func (m *Manager) readingTime(rung bool) time.Duration {
	t := time.Duration(len(m.children)) * readTime
	if rung {
		return max(t, ringTime)
	}
	return t
}

// readable is when the board may be read next.
func (m *Manager) readable() pool.Time {
	return max(0, m.watch.paced-(inAdvance-1)*m.readingTime(true))
}

// lookAround brings the policy up to date with what the workers have published, and says when it wants to look again.
func (m *Manager) lookAround() pool.Time {
	next := pool.Never
	if m.watches() {
		now := m.now()
		if m.watch.due && m.readable() <= now || m.watch.look != pool.Never && m.watch.look <= now {
			m.watch.paced = max(m.watch.paced, now) + m.readingTime(m.watch.rung)
			m.watch.due, m.watch.rung = false, false
			m.readBoard()
		}
		next = m.watch.look
	}
	if m.cfg.Recycle.MaxMemory > 0 {
		next = pool.Sooner(next, m.weighWorkers())
	}
	return next
}

// readBoard reads what the workers have published until nothing that matters changes meanwhile, and arms the bell for what comes.
func (m *Manager) readBoard() {
	again := true
	for tries := 3; again && tries > 0; tries-- { // whoever changes all the time rings again
		seen := m.counted()
		idle := m.tellBusy(seen)
		m.findStuck(seen, idle)
		low, high := 0, len(seen)
		if m.cfg.MinSpareWorkers > 0 {
			low, high = m.cfg.MinSpareWorkers, m.cfg.MaxSpareWorkers
		}
		if m.cfg.Stuck.Timeout > 0 && idle == len(seen) {
			low = len(seen) // the first that is busy begins the watch
		}
		cells := make([]*scoreboard.Cell, len(seen))
		for i, c := range seen {
			cells[i] = c.cell
		}
		now := m.watch.bell.Post(cells, low, high)
		again = (now < low) != (idle < low) || (now > high) != (idle > high)
	}
	if again {
		m.watch.due, m.watch.rung = true, true
	}
	m.handle(pool.Event{Kind: pool.Surveyed})
}

// tellBusy tells the policy who is busy, and returns how many are not.
func (m *Manager) tellBusy(seen []*child) (idle int) {
	for _, c := range seen {
		busy := c.cell.Read().Busy()
		if !busy {
			idle++
		}
		if busy == c.busy {
			continue
		}
		c.busy = busy
		kind := pool.Idle
		if busy {
			kind = pool.Busy
		}
		m.handle(pool.Event{Kind: kind, ID: c.Ordinal})
	}
	return idle
}

// counted are the workers that are starting or ready, without the replacements, which are idle as long as they are that.
func (m *Manager) counted() []*child {
	bySlot := make(map[int]*child)
	for _, c := range m.children {
		if c.cell == nil || c.Slot == noSlot || c.ending || c.State >= StateStopping {
			continue
		}
		if other := bySlot[c.Slot]; other == nil || c.State == StateReady && other.State != StateReady || c.State == other.State && c.Ordinal < other.Ordinal {
			bySlot[c.Slot] = c
		}
	}
	seen := make([]*child, 0, len(bySlot))
	for _, c := range bySlot {
		seen = append(seen, c)
	}
	slices.SortFunc(seen, func(a, b *child) int { return a.Ordinal - b.Ordinal })
	return seen
}

// findStuck looks for workers that have been busy for too long without a beat. It looks only while one is busy. Where the
// manager itself was held up (suspended, stopped, starved), it has seen nothing of what the workers did meanwhile, and
// begins anew.
func (m *Manager) findStuck(seen []*child, idle int) {
	timeout := m.cfg.Stuck.Timeout
	if timeout <= 0 {
		m.watch.look = pool.Never
		return
	}
	now, period := m.now(), max(timeout/8, time.Millisecond)
	heldUp := m.watch.look != pool.Never && now-m.watch.look > 2*period
	for _, c := range seen {
		if heldUp || c.Paused { // it waits, as it was told to
			c.watch = scoreboard.Watch{}
		}
		if c.watch.Look(c.cell.Read(), now) >= timeout {
			m.handle(pool.Event{Kind: pool.Jam, ID: c.Ordinal})
		}
	}
	if idle == len(seen) {
		m.watch.look = pool.Never
	} else if m.watch.look == pool.Never || m.watch.look <= now {
		m.watch.look = now + period
	}
}

// weighPeriod is how often the memory of workers is looked at, where Recycle.MaxMemory asks for it.
const weighPeriod = 2 * time.Second

// weighWorkers has workers retire that use too much memory.
func (m *Manager) weighWorkers() pool.Time {
	if m.watch.weigh > m.now() {
		return m.watch.weigh
	}
	m.watch.weigh = m.now() + weighPeriod
	for _, c := range m.children {
		if c.State == StateReady && residentMemory(c.PID) > c.maxMemory {
			m.handle(pool.Event{Kind: pool.Retire, ID: c.Ordinal})
		}
	}
	return m.watch.weigh
}

// residentMemory is what a process uses of memory that is its own, in bytes; 0 where that cannot be told.
func residentMemory(pid int) int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(statm))
	if err != nil || len(fields) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(fields[1], 10, 64)
	shared, _ := strconv.ParseInt(fields[2], 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}

// jittered takes up to a fifth off n, by chance, so that workers that started together do not retire together.
func jittered(n int64) int64 { return n - int64(rand.Float64()*float64(n/5)) }

// layCell gives a worker its cell.
func layCell(spec *proc.Spec, marker *inherit.Marker, fd int) {
	spec.Files = append(spec.Files, uintptr(fd))
	marker.Cell = len(spec.Files) - 1
}
