package proc

import (
	"fmt"
	"sync"
)

// memberShift is the number of bits of an id in a shared table. The bits above it
// are the number of the member.
const memberShift = 40

// mostMembers is how many numbers of members there are below an id of 1<<62.
const mostMembers = 1 << (62 - memberShift)

// shared is the table that all Managers of this process use: a program with
// hundreds of them has one thread and two goroutines for it, and one epoll.
var shared struct {
	mu      sync.RWMutex
	table   Table // nil while there are no members
	members map[uint64]func(Note)
	last    uint64 // the number that was given last
}

// Share returns a part of the table of this process, for one owner. Its ids are
// below 1<<40. The table exists as long as one of its parts.
func Share(notify func(Note)) Table {
	s := &shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table == nil {
		s.table, s.members = New(sendShared), make(map[uint64]func(Note))
	}
	for { // numbers come again late: a note may be on its way
		s.last = (s.last + 1) % mostMembers
		if s.members[s.last] == nil {
			break
		}
	}
	s.members[s.last] = notify
	return &member{Table: s.table, number: s.last}
}

func sendShared(n Note) {
	shared.mu.RLock()
	defer shared.mu.RUnlock()
	if notify := shared.members[n.ID>>memberShift]; notify != nil {
		notify(Note{n.ID & (1<<memberShift - 1), n.Kind})
	}
}

// member is the part of the shared table that one owner has.
type member struct {
	Table  // shared
	number uint64
	closed bool
}

func (m *member) Start(id uint64, spec Spec) (Process, error) {
	if m.closed {
		return nil, errClosed()
	}
	if id>>memberShift != 0 {
		return nil, fmt.Errorf("proc: the id %d is too large", id)
	}
	return m.Table.Start(m.number<<memberShift|id, spec)
}

// Close ends the notes to this owner. The last one closes the table.
func (m *member) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	s := &shared
	s.mu.Lock()
	delete(s.members, m.number)
	last := len(s.members) == 0
	if last {
		s.table = nil
	}
	s.mu.Unlock()
	if last { // without the lock, which a note may wait for
		return m.Table.Close()
	}
	return nil
}
