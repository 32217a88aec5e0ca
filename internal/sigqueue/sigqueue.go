// Package sigqueue keeps the signals that have arrived until the manager handles
// them.
package sigqueue

import (
	"os"
	"slices"
)

// Arrival is a signal that was received, as the manager counts it.
type Arrival struct {
	Sig       os.Signal
	Interrupt bool   // an interrupt, which counts as Sig
	Context   bool   // the end of Run's context, which counts as Sig
	Origin    string // the cause if no process has sent Sig; "" if one has
	Request   int    // the number of the command that Sig stands for; 0 for a signal
}

// Queue keeps one of each signal. The shutdown signal comes first, then the
// others in order of arrival. Parallel::Prefork keeps only the last signal, and
// forgets it at the entry of start, so that a TERM is lost behind a HUP or while
// the configuration is loaded.
type Queue []Arrival

// Add adds an arrival unless the same, of any origin, is waiting already. Both
// together count as sent by a process if one of them is.
func (q *Queue) Add(a Arrival) {
	i := slices.IndexFunc(*q, func(b Arrival) bool {
		b.Origin = a.Origin
		return a == b
	})
	switch {
	case i < 0:
		*q = append(*q, a)
	case a.Origin == "":
		(*q)[i].Origin = ""
	}
}

// Has reports whether sig is waiting.
func (q Queue) Has(sig os.Signal) bool {
	return slices.ContainsFunc(q, func(a Arrival) bool { return a.Sig == sig })
}

// Take removes the next arrival.
func (q *Queue) Take(shutdown os.Signal) (Arrival, bool) {
	if len(*q) == 0 {
		return Arrival{}, false
	}
	i := max(0, slices.IndexFunc(*q, func(a Arrival) bool { return a.Sig == shutdown }))
	a := (*q)[i]
	*q = slices.Delete(*q, i, i+1)
	return a, true
}

// DropContext removes arrivals that stand for the end of a context.
func (q *Queue) DropContext() {
	*q = slices.DeleteFunc(*q, func(a Arrival) bool { return a.Context })
}
