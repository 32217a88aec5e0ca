// Package change follows what a manager changes as a whole: which reload or
// upgrade is under way, how the last ones ended, and the answers to the callers
// that wait for an outcome.
package change

import (
	"context"
	"slices"
	"time"
)

// Kind is the kind of a change, or of another command that a caller waits for.
type Kind string

const (
	Reload  = Kind("reload")  // new workers, one after the other
	Restart = Kind("restart") // new workers, all at once
	Upgrade = Kind("upgrade") // a new manager
	Replace = Kind("replace") // one new worker; Tracker follows only its ticket
)

// Change is a change that is under way.
type Change struct {
	Kind       Kind
	Generation int // that it brings, or that runs during an upgrade
	Began      time.Time
	Successor  int // of an upgrade: its pid, once it was started
}

// Outcome is how a change has ended.
type Outcome struct {
	Began, Ended time.Time
	Generation   int
	Err          error // nil if it has succeeded
}

// Ticket is a command that callers wait for. Its methods are safe for concurrent
// use.
type Ticket struct {
	ID   int // from 1
	Kind Kind
	How  any // comparable; commands of one kind and How that wait are one

	due  bool // it was carried out, or its turn has come
	done chan struct{}
	n    int
	err  error
}

// Wait returns the answer: a number that depends on the kind, and the error if
// the command has failed. It returns ctx's error if that ends first; the command
// goes on then.
func (t *Ticket) Wait(ctx context.Context) (n int, err error) {
	select {
	case <-t.done:
		return t.n, t.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Tracker has the changes and the open tickets of a manager. Its methods are not
// safe for concurrent use; the owner guards it with the lock of the state that the
// changes are a part of.
type Tracker struct {
	// Due is called when the turn of a ticket has come that had to wait for the end
	// of another change. It must be set.
	Due func(*Ticket)

	reload, upgrade         *underway
	lastReload, lastUpgrade *Outcome
	open                    []*Ticket
	ids                     int
	closed                  error
}

type underway struct {
	Change
	how     any       // of the command that has begun it
	lost    bool      // a worker of its generation has ended
	tickets []*Ticket // answered at its end
	before  *underway // the reload that it supersedes, once its generation begins
}

// all returns the tickets that wait for the end, or did when it was superseded.
func (u *underway) all() []*Ticket {
	if u == nil {
		return nil
	}
	return append(u.before.all(), u.tickets...)
}

// Ask returns a ticket for a command. If the same command waits, it is the ticket
// of that. A change under way may have read the configuration and the program's
// file before they were changed, so that no command joins it: the same one waits
// for its end. due reports whether the caller must carry out the command now; for
// one that waits, Due is called later.
func (t *Tracker) Ask(kind Kind, how any) (ticket *Ticket, due bool) {
	for _, o := range t.open {
		if o.Kind == kind && o.How == how && !t.isUnderWay(o) {
			return o, false
		}
	}
	t.ids++
	ticket = &Ticket{ID: t.ids, Kind: kind, How: how, done: make(chan struct{})}
	t.open = append(t.open, ticket)
	if t.closed != nil {
		t.Answer(ticket, 0, t.closed)
		return ticket, false
	}
	u := t.blocking(kind)
	ticket.due = u == nil || u.how != how
	return ticket, ticket.due
}

// blocking returns the change for whose end others of its kind wait; nil for none.
// A reload whose workers end may never settle, and must not hold up the one that
// repairs it.
func (t *Tracker) blocking(kind Kind) *underway {
	switch {
	case kind == Upgrade:
		return t.upgrade
	case kind == Reload && t.reload != nil && !t.reload.lost:
		return t.reload
	}
	return nil
}

// callDue calls Due for the tickets that need not wait any longer.
func (t *Tracker) callDue() {
	for _, o := range t.open {
		if !o.due && t.blocking(o.Kind) == nil {
			o.due = true
			t.Due(o)
		}
	}
}

func (t *Tracker) isUnderWay(ticket *Ticket) bool {
	return slices.Contains(t.reload.all(), ticket) || slices.Contains(t.upgrade.all(), ticket)
}

// Waiting returns the open ticket with an ID that does not belong to a change
// under way, or nil.
func (t *Tracker) Waiting(id int) *Ticket {
	i := slices.IndexFunc(t.open, func(o *Ticket) bool { return o.ID == id })
	if i < 0 || t.isUnderWay(t.open[i]) {
		return nil
	}
	return t.open[i]
}

// Answer answers a ticket. It is a no-op if that is not open.
func (t *Tracker) Answer(ticket *Ticket, n int, err error) {
	i := slices.Index(t.open, ticket)
	if i < 0 {
		return
	}
	t.open = slices.Delete(t.open, i, i+1)
	ticket.n, ticket.err = n, err
	close(ticket.done)
}

// BeginReload begins a change of kind Reload or Restart, for a ticket of kind
// Reload that is not under way. A reload that is under way is superseded: its
// tickets get the outcome of this one, unless that is canceled.
func (t *Tracker) BeginReload(c Change, ticket *Ticket) {
	u := begin(c, ticket)
	if u.before = t.reload; u.before != nil { // its generation has begun
		u.before.tickets, u.before.before = u.before.all(), nil
	}
	t.reload = u
}

func begin(c Change, ticket *Ticket) *underway {
	ticket.due = true
	return &underway{Change: c, how: ticket.How, tickets: []*Ticket{ticket}}
}

// CancelReload ends a reload with an error before its generation has begun. The
// reload that it would have superseded goes on.
func (t *Tracker) CancelReload(now time.Time, err error) {
	u := t.reload
	t.reload = u.before
	u.before = nil
	t.lastReload = t.end(u, now, u.Generation, err)
	t.callDue()
}

// WorkerLost notes that a worker of a generation has ended, or was not spawned. A
// generation that a Start loop has begun since takes the place of the reload's.
func (t *Tracker) WorkerLost(generation int) {
	if u := t.reload; u != nil && generation >= u.Generation {
		u.lost = true
		t.callDue()
	}
}

// BeginUpgrade begins a change of kind Upgrade, for a ticket of that kind.
func (t *Tracker) BeginUpgrade(c Change, ticket *Ticket) {
	t.upgrade = begin(c, ticket)
}

// SetSuccessor notes the successor of the upgrade under way.
func (t *Tracker) SetSuccessor(pid int) {
	if t.upgrade != nil {
		t.upgrade.Successor = pid
	}
}

// EndUpgrade ends the upgrade under way, if there is one, with the pid of the
// successor or an error.
func (t *Tracker) EndUpgrade(now time.Time, pid int, err error) {
	if u := t.upgrade; u != nil {
		t.upgrade = nil
		t.lastUpgrade = t.end(u, now, pid, err)
		t.callDue()
	}
}

// Settled ends the reload under way if its generation is in place, or a later
// one.
func (t *Tracker) Settled(now time.Time, generation int) {
	if u := t.reload; u != nil && generation >= u.Generation {
		u.Generation = generation
		t.endReload(now, generation, nil)
	}
}

// Failed notes that a generation has failed, so that a pool whose newest generation
// is newest goes back to an older one. That ends the reload under way if its
// generation has begun, whichever it is. A reload that has just ended has failed,
// too, if it brought the generation.
func (t *Tracker) Failed(now time.Time, generation, newest int, err error) {
	last := t.lastReload
	switch {
	case t.reload != nil && t.reload.Generation <= newest:
		t.endReload(now, generation, err)
	case last != nil && last.Generation == generation && last.Err == nil:
		t.lastReload = &Outcome{Began: last.Began, Ended: now, Generation: generation, Err: err}
	}
}

func (t *Tracker) endReload(now time.Time, n int, err error) {
	u := t.reload
	t.reload = nil
	t.lastReload = t.end(u, now, n, err)
	t.callDue()
}

// end answers the tickets of a change.
func (t *Tracker) end(u *underway, now time.Time, n int, err error) *Outcome {
	for _, ticket := range u.all() {
		t.Answer(ticket, n, err)
	}
	return &Outcome{Began: u.Began, Ended: now, Generation: u.Generation, Err: err}
}

// Refuse ends the reload under way with an error and answers all tickets with it,
// except for that of an upgrade under way.
func (t *Tracker) Refuse(now time.Time, err error) {
	if u := t.reload; u != nil {
		t.reload = nil
		t.lastReload = t.end(u, now, u.Generation, err)
	}
	for _, ticket := range slices.Clone(t.open) {
		if t.upgrade == nil || !slices.Contains(t.upgrade.tickets, ticket) {
			t.Answer(ticket, 0, err)
		}
	}
}

// Close has Ask answer every ticket with an error from now on; nil ends that.
func (t *Tracker) Close(err error) { t.closed = err }

// Pending returns the generation that a reload under way brings, zero for none.
func (t *Tracker) Pending() int {
	if t.reload == nil {
		return 0
	}
	return t.reload.Generation
}

// Now returns the change under way; an upgrade comes first. ok is false for none.
func (t *Tracker) Now() (c Change, ok bool) {
	switch {
	case t.upgrade != nil:
		return t.upgrade.Change, true
	case t.reload != nil:
		return t.reload.Change, true
	}
	return Change{}, false
}

// Last returns how the last reload and the last upgrade ended; nil for none.
func (t *Tracker) Last() (reload, upgrade *Outcome) { return t.lastReload, t.lastUpgrade }
