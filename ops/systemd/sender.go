package systemd

import (
	"log/slog"
	"time"

	"github.com/prefork-go/prefork"
)

const (
	queueSize  = 64
	closeGrace = time.Second
)

// A sender sends messages to systemd in a goroutine of its own: systemd may take
// none for a while.
type sender struct {
	log   *slog.Logger
	queue chan string
	sent  chan struct{} // closed when sendAll ends
}

// newSender starts a sender. It returns an error too if the socket of systemd cannot
// be reached.
func newSender(log *slog.Logger) (*sender, error) {
	s := &sender{log: log, queue: make(chan string, queueSize), sent: make(chan struct{})}
	err := reach()
	go s.sendAll(err != nil)
	return s, err
}

// send queues a message. If systemd has taken none for so long that the queue is
// full, the oldest one is dropped: the newest says how things are.
func (s *sender) send(message string) {
	for {
		select {
		case s.queue <- message:
			return
		default:
		}
		select {
		case <-s.queue:
		default:
		}
	}
}

// sendAll sends the queued messages. After a takeover the successor alone sends.
// The first failure is logged, unless one was reported already.
func (s *sender) sendAll(logged bool) {
	defer close(s.sent)
	for message := range s.queue {
		if prefork.HandedOver() {
			continue
		}
		if err := sdNotify(message); err != nil && !logged {
			logged = true
			s.log.Warn("cannot notify systemd", "err", err)
		}
	}
}

// close waits until the messages are sent, but not long.
func (s *sender) close() {
	close(s.queue)
	select {
	case <-s.sent:
	case <-time.After(closeGrace): // systemd takes no messages
	}
}
