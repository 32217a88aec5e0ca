// Package scoreboard is the memory in which workers publish what they are doing, and which the manager reads. A worker
// publishes by a store and makes no system call, save where it rings the bell; the manager reads without asking anybody.
//
// # One cell, one file, one worker
//
// The cell of a worker is an anonymous file of its own, a cache line in size, which manager and worker map: the manager
// makes it for a spawn (New), the worker inherits its descriptor and maps it (Open), both close the descriptor, and the
// cell goes with its worker (Close). There is no region that all share, because of what follows without it:
//
//   - No worker is given a way to read, write, truncate or hole another's cell. With pages of one file, who has the
//     file's descriptor for a moment can map all of them. Workers of one user have the ways of a debugger (ptrace,
//     /proc/PID/mem) into each other and the manager, as all processes of one user; those of different users have none.
//   - A cell is never used again, so there is none to be cleared, and nothing that outlives a worker (a process forked
//     from it) writes into that of the next one. Two workers in one slot are two cells.
//   - The pool grows by making a cell. No region has to be enlarged under workers that have mapped it.
//   - No two cells share a cache line: each has a page.
//
// The price is that page, an inode and a mapping in the manager: some 6 KiB a worker (observed), and some 65,000 workers
// in all, the number of mappings that Linux allows a process (vm.max_map_count). The manager holds no descriptor.
//
// Where the file is a memfd, it is sealed: against shrinking, which would kill whoever reads it (SIGBUS), against
// growing, since its size is all that it will ever need, and against further seals, by one of which (F_SEAL_FUTURE_WRITE)
// a worker that does not map its cell first could keep others from it. Where it is not (a system without memfd, a
// filter), a worker can truncate its own cell; the manager takes the fault that follows for a damaged cell.
//
// # What is published
//
// Counters, and no times: a worker would pay 35 ns and more for the time, and its clock is not the manager's. The manager
// notes when it saw the counters move (Watch). Status, the number of its changes and the bell are one word, changed in one
// step. So a worker that dies between any two instructions leaves a whole state behind. The others count by themselves:
// a Read is not a picture of one moment.
//
// What a worker writes is not trusted. A state that no worker of this layout writes, and a count that goes back or is
// beyond reason, make the cell damaged, for good: its worker counts as busy and as not moving, so that it is not taken
// for a spare one, and is ended as stuck where that is asked for. What else it writes can be false only about itself.
//
// # The bell
//
// The manager is to hear of it when too few workers are idle, or too many, and of nothing else. A number of idle workers
// that all of them keep would be contended, and wrong for good once one dies or lies. Instead the manager arms single
// cells (Bell.Post): as long as low idle workers that it has armed stay idle, there cannot be fewer than low; the first
// of them to become busy rings. In the same way, as long as there are as many armed busy ones as there may not be idle,
// there are not too many idle. The cell is armed in the same word that holds the status, only if that is still as it
// should be, and a worker's change of status takes the bell off in the same step: who takes it off rings, once. No order
// of two words has to be argued about, and between processes nothing is asked of the memory but that each of its words
// changes in one order for all. A worker that ends before it gets to ring is heard of by its end; one that is stopped
// there (SIGSTOP) rings when it goes on.
//
// What the bell is, the caller says (the ring of Open). A message on the worker's control socket serves better than
// an eventfd: it is there already, it says who rang, and no other worker can read it away.
//
// It works on Unix systems. Elsewhere New and Open return an error that wraps errors.ErrUnsupported.
package scoreboard

import "sync/atomic"

// The bytes of a status. Any other is a busy worker's.
const (
	None = '.' // the worker has not published any
	Idle = '_'
)

// layout is what a cell begins with. The last byte is the version, which changes with every change of the layout.
const layout = uint64('p')<<56 | 'f'<<48 | 's'<<40 | 'c'<<32 | 'e'<<24 | 'l'<<16 | 'l'<<8 | 1

// size of a cell in bytes: a cache line, of which a worker writes one half, and nobody else writes any but the bell.
const size = 64

// page is a cell as it lies in the memory.
type page struct {
	layout atomic.Uint64 // written by the manager, once
	state  atomic.Uint64
	served atomic.Uint64
	beats  atomic.Uint64
	_      [size - 32]byte
}

// A state has, from its lowest bit: the byte of the status, whether it was ever set, the bell, five bits that are zero,
// and the number of changes of the status, modulo 2^48.
const (
	statusByte uint64 = 0xff
	statusSet  uint64 = 1 << 8
	bellLow    uint64 = 1 << 9  // ring when the status becomes a busy one; is only set while it is not
	bellHigh   uint64 = 1 << 10 // ring when it becomes one that is not busy; is only set while it is
	bells             = bellLow | bellHigh
	stateZero  uint64 = 0x1f << 11
	oneChange  uint64 = 1 << 16
)

// maxCount is more than a worker can have served: a request each microsecond for nine years. The sum over as many workers
// as there can be does not overflow.
const maxCount = 1 << 48

// Status is what a worker has published, as far as the manager trusts it.
type Status struct {
	C       byte   // None, Idle, or whatever the worker calls its being busy
	Served  uint64 // the sum of all Served
	Beats   uint64 // the number of beats, modulo 2^64: of use for being compared
	Changes uint64 // the number of times that the status was set, modulo 2^48
	Damaged bool   // the worker has written what no worker writes: C is '?', the counts are the last good ones
}

// Busy reports whether the worker is busy: its status is neither none nor idle.
func (s Status) Busy() bool { return s.Damaged || isBusy(s.C) }

func isBusy(c byte) bool { return c != None && c != Idle }

// statusOf is the status byte of a state; false if no worker writes such a state.
func statusOf(state uint64) (c byte, ok bool) {
	c = byte(state & statusByte)
	switch {
	case state&stateZero != 0:
		return '?', false
	case state&statusSet == 0:
		return None, c == 0 && state/oneChange == 0 && state&bellHigh == 0
	}
	return c, isBusy(c) && state&bellLow == 0 || !isBusy(c) && state&bellHigh == 0
}
