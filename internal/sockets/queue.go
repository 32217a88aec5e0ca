package sockets

import "github.com/prefork-go/prefork/internal/marker"

// Queue is the accept queue of a listening socket.
type Queue struct {
	Info
	Slot             int // that the socket belongs to; marker.Shared for none
	Waiting, Backlog int // connections, and how many it can hold; Unknown for unknown
}

// Unknown is the length of a queue that the system does not report.
const Unknown = -1

// Queues returns the accept queue of each socket, in the order of the calls and
// of the slots.
func (set *Set) Queues() (all []Queue) {
	set.mu.Lock()
	defer set.mu.Unlock()
	for _, s := range set.list {
		if s.group == nil {
			all = append(all, s.queue(marker.Shared, s.fd))
			continue
		}
		for slot, descriptor := range s.group.fds {
			all = append(all, s.queue(slot, descriptor))
		}
	}
	return all
}

func (s *socket) queue(slot, descriptor int) Queue {
	q := Queue{Info: s.info(), Slot: slot, Waiting: Unknown, Backlog: Unknown}
	if waiting, backlog, ok := acceptQueue(s.network, descriptor); ok {
		q.Waiting, q.Backlog = waiting, backlog
	}
	return q
}
