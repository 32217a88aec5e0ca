package scan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A state is the outcome of a look at a name.
type state uint8

const (
	gone    state = iota
	program       // an executable file
	service       // a directory with an executable run
	noRun         // another directory
	other         // not a service
	unknown       // the system did not answer
)

// A file is a name at the time of a look. Two looks at a program that did not
// change in between find the same file.
type file struct {
	state  state
	id     identity // of a program, or of a directory
	reason string   // why it is no service
}

// An identity differs if a file was written or replaced. That of a directory has
// no size and time.
type identity struct {
	dev, inode  uint64
	size, mtime int64
}

func (f file) isService() bool { return f.state == program || f.state == service }

func (f file) kind() Kind {
	switch f.state {
	case program:
		return Program
	case service:
		return Service
	}
	return 0
}

// A name is an entry of the directory.
type name struct {
	reported file // as the last change said
	seen     file // by the last look
	full     bool // it is passed over because there are too many

	// The first and the last time at which something happened to it since it
	// has settled; zero if it has.
	first, last time.Time
}

// A policy decides which changes of a directory count, and when. It does not
// look at files or clocks.
type policy struct {
	settle    time.Duration
	max       int
	names     map[string]*name
	unsettled map[string]*name
	services  int // reported and not removed
}

func newPolicy(settle time.Duration, max int) *policy {
	return &policy{settle: settle, max: max, names: make(map[string]*name), unsettled: make(map[string]*name)}
}

// look takes the outcome of a look at a name. happened is set if the system has
// notified of a change, which may have gone again.
func (p *policy) look(key string, f file, at time.Time, happened bool) {
	n := p.names[key]
	if n == nil {
		if f.state == gone {
			return
		}
		n = &name{}
		p.names[key] = n
	}
	if f.state == unknown && n.reported.isService() {
		f = n.reported // a disk that fails ends no service
	}
	if n.reported.state == service && f.state == noRun && f.id == n.reported.id {
		f = n.reported // an editor saves run, or it is gone: the next start fails
	}
	if !happened && f == n.seen {
		return
	}
	n.seen, n.last = f, at
	if n.first.IsZero() {
		n.first = at
	}
	p.unsettled[key] = n
}

// settles returns when a name counts as settled if nothing else happens to it.
func (p *policy) settles(n *name) time.Time {
	at := n.last.Add(p.settle)
	if end := n.first.Add(max(latest, p.settle)); end.Before(at) {
		return end
	}
	return at
}

// next returns when the first name settles; zero if all have.
func (p *policy) next() (at time.Time) {
	for _, n := range p.unsettled {
		if t := p.settles(n); at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

// due returns the names that settle unless another look finds a difference.
func (p *policy) due(now time.Time) (keys []string) {
	for key, n := range p.unsettled {
		if !p.settles(n).After(now) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// changes returns the changes of the names that have settled.
func (p *policy) changes(now time.Time) (changes []Change) {
	for _, key := range p.due(now) {
		n := p.names[key]
		n.first, n.last = time.Time{}, time.Time{}
		delete(p.unsettled, key)
		changes = append(changes, p.change(key, n)...)
		if n.seen.state == gone {
			delete(p.names, key)
		}
	}
	changes = append(changes, p.admit()...)
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(a.Entry.Name, b.Entry.Name) })
	return changes
}

// change reports the new state of a name, except that admit adds services.
func (p *policy) change(key string, n *name) (changes []Change) {
	was, is := n.reported, n.seen
	if !is.isService() {
		n.full = false
	}
	switch {
	case was == is:
		return nil
	case was.state == program && is.state == program:
		n.reported = is
		return []Change{{Op: Changed, Entry: Entry{key, Program}}}
	case was.isService():
		p.services--
		changes = append(changes, Change{Removed, Entry{key, was.kind()}, is.reason})
	case !is.isService() && is.reason != "" && is.reason != was.reason:
		changes = append(changes, Change{PassedOver, Entry{Name: key}, is.reason})
	}
	n.reported = is
	if is.isService() {
		n.reported = file{}
	}
	return changes
}

// admit adds the services that are settled, as far as there is room.
func (p *policy) admit() (changes []Change) {
	for _, key := range slices.Sorted(maps.Keys(p.names)) {
		n := p.names[key]
		switch {
		case !n.first.IsZero() || !n.seen.isService() || n.reported.isService():
		case p.services < p.max:
			p.services++
			n.reported, n.full = n.seen, false
			changes = append(changes, Change{Op: Added, Entry: Entry{key, n.seen.kind()}})
		case !n.full:
			n.full = true
			changes = append(changes, Change{PassedOver, Entry{Name: key}, fmt.Sprintf("there are %d services already", p.max)})
		}
	}
	return changes
}
