// Package scoreboard provides the shared memory in which a worker publishes its
// status for the manager. A worker publishes by a store and makes no system
// call, except to notify the manager. The manager reads without a request to
// the worker.
//
// # One cell, one file, one worker
//
// The cell of a worker is an anonymous file of its own, one cache line in size,
// that the manager and the worker map. The manager makes it for a spawn (New).
// The worker inherits the descriptor and maps the cell (Open). Both close the
// descriptor. The manager unmaps the cell after the worker's exit (Close).
// There is no region shared by all workers, for four reasons:
//
//   - A worker cannot read, write, truncate or punch a hole in the cell of
//     another worker. If the cells were pages of one file, a process that holds
//     its descriptor for a moment could map all of them. Processes of one user
//     can still use debugger interfaces (ptrace, /proc/PID/mem) on each other
//     and on the manager; processes of different users cannot.
//   - A cell is never reused, so it is never cleared, and a process forked from
//     a worker cannot write into the cell of a later worker. Two workers in one
//     slot have two cells.
//   - The pool grows by one more cell. No region must be enlarged while workers
//     have it mapped.
//   - Two cells never share a cache line: each has its own page.
//
// The price is that page, an inode and a mapping in the manager: about 6 KiB
// for each worker (observed). Linux allows about 65,000 mappings in a process
// (vm.max_map_count), which limits the number of workers. The manager holds no
// descriptor.
//
// A memfd is sealed against shrinking, which would kill a reader (SIGBUS), and
// against growing, since its size never changes. It is also sealed against
// further seals: with F_SEAL_FUTURE_WRITE, a worker that has not mapped its
// cell could keep others from mapping it. A file that is not a memfd cannot be
// sealed, so its worker can truncate it. The manager treats the resulting fault
// as a damaged cell.
//
// # Published values
//
// A worker publishes counters and no times. Reading the clock would cost 35 ns
// or more, and the worker's clock is not the manager's. The manager records
// when it saw the counters change (Stall). The status, the number of its
// changes and the notify bits are one word that changes in one step, so a
// worker that dies between two instructions leaves a valid state. The other
// counters are independent: a Read is not a picture of one moment.
//
// The manager does not trust a worker's data. A cell becomes damaged, for good,
// if its state is one that this layout cannot contain, or if a counter
// decreases or is implausible. The worker of a damaged cell counts as busy and
// as making no progress: it is not a spare worker, and Config.Stuck ends it.
// Any other false data misrepresents only that worker.
//
// # Notifications
//
// The manager needs a notification if too few or too many workers are idle, and
// none otherwise. A shared count of idle workers would be contended, and wrong
// for good once a worker dies or writes a false value. Instead the manager arms
// single cells (Notifier.Arm). While low armed idle workers stay idle, at least
// low workers are idle; the first of them that becomes busy notifies the
// manager. Armed busy workers guard the upper limit in the same way.
//
// The notify bits are in the same word as the status. The manager sets a bit
// only if the status is still the one it read, and a change of status clears
// the bit in the same step. The goroutine that clears it notifies the manager,
// once. The order of two words never matters. All that processes require of the
// memory is that the changes of one word have the same order for all of them.
// If a worker exits before it notifies, the manager learns of it by the exit.
// If it is stopped at that point (SIGSTOP), it notifies when it continues.
//
// The caller of Open chooses the form of the notification. It should be a
// message on the worker's control socket rather than an eventfd: the socket
// exists already, identifies the worker, and no other worker can read from it.
//
// The package works on Unix systems. Elsewhere New and Open return an error
// that wraps errors.ErrUnsupported.
package scoreboard

import "sync/atomic"

// The bytes of a status that is not busy. Any other byte means busy.
const (
	None = '.' // the worker has not published a status
	Idle = '_'
)

// layout is the first word of a cell. Its last byte is the version, which must
// change whenever the layout does.
const layout = uint64('p')<<56 | 'f'<<48 | 's'<<40 | 'c'<<32 | 'e'<<24 | 'l'<<16 | 'l'<<8 | 1

// size is the size of a cell in bytes: a cache line. The manager writes only the
// layout and the notify bits, the worker the other fields.
const size = 64

// Size is the number of bytes that New needs in its file.
const Size = size

// page is a cell in memory.
type page struct {
	layout     atomic.Uint64 // written by the manager, once
	state      atomic.Uint64
	served     atomic.Uint64
	heartbeats atomic.Uint64
	context    atomic.Uint64 // not 0 once the worker has called Context
	_          [size - 40]byte
}

// A state consists, from its lowest bit, of the status byte, a bit that is set
// with the first status, the notify bits, five zero bits, and the number of
// changes of the status modulo 2^48.
const (
	statusByte uint64 = 0xff
	statusSet  uint64 = 1 << 8
	notifyBusy uint64 = 1 << 9  // notify when the status becomes busy; set only while it is not
	notifyIdle uint64 = 1 << 10 // notify when the status becomes idle; set only while it is busy
	notifyBits        = notifyBusy | notifyIdle
	stateZero  uint64 = 0x1f << 11
	oneChange  uint64 = 1 << 16
)

// maxCount is more than a worker can have served: a request each microsecond
// for nine years. The sum over the maximum number of workers does not overflow.
const maxCount = 1 << 48

// Status is the published state of a worker, as far as the manager trusts it.
type Status struct {
	C          byte   // None, Idle, or the worker's own byte for busy
	Served     uint64 // the total of Writer.Served
	Heartbeats uint64 // modulo 2^64, only for comparison
	Changes    uint64 // the number of calls of Writer.Set, modulo 2^48
	Context    bool   // the worker has called Context
	Damaged    bool   // the cell is damaged: C is '?' and the counters are the last valid ones
}

// Busy reports whether the worker is busy: its status is neither None nor Idle.
func (s Status) Busy() bool { return s.Damaged || isBusy(s.C) }

func isBusy(c byte) bool { return c != None && c != Idle }

// statusOf returns the status byte of a state, and false if a worker cannot
// have written the state.
func statusOf(state uint64) (c byte, ok bool) {
	c = byte(state & statusByte)
	switch {
	case state&stateZero != 0:
		return '?', false
	case state&statusSet == 0:
		return None, c == 0 && state/oneChange == 0 && state&notifyIdle == 0
	}
	return c, isBusy(c) && state&notifyBusy == 0 || !isBusy(c) && state&notifyIdle == 0
}
