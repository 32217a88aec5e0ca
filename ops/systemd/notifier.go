package systemd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prefork-go/prefork"
)

// A Notifier notifies systemd of a program whose Managers come and go, such as
// prefork watch. Other programs should use Attach. Its methods do not block, except
// Close, and are for one goroutine at a time. Those of a nil Notifier are no-ops.
type Notifier struct {
	sender   *sender
	watchdog time.Duration
}

// NewNotifier returns nil without NOTIFY_SOCKET in the environment, and in a worker.
// It returns an error, beside the Notifier, if a variable of systemd is malformed or
// its socket cannot be reached.
func NewNotifier(log *slog.Logger) (*Notifier, error) {
	if prefork.IsWorker() || os.Getenv("NOTIFY_SOCKET") == "" {
		return nil, nil
	}
	n := &Notifier{}
	var err, malformed error
	n.sender, err = newSender(log)
	n.watchdog, malformed = watchdogPeriod(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), isSuccessor())
	if err = errors.Join(err, malformed); err != nil {
		err = fmt.Errorf("systemd: %w", err)
	}
	return n, err
}

// Ready reports that the program has started, or has reloaded.
func (n *Notifier) Ready(status string) { n.send("READY=1\nSTATUS=" + oneLine(status)) }

// Reloading reports that the program reloads. Ready must follow.
func (n *Notifier) Reloading() { n.send("RELOADING=1\n" + monotonicUsec() + "STATUS=reloading") }

// Stopping reports that the program stops.
func (n *Notifier) Stopping(status string) { n.send("STOPPING=1\nSTATUS=" + oneLine(status)) }

// Status changes the text that systemctl status shows.
func (n *Notifier) Status(status string) { n.send("STATUS=" + oneLine(status)) }

// Watchdog returns the time in which systemd expects Alive; 0 for none. The program
// should call Alive three times as often.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Alive reports that the program works.
func (n *Notifier) Alive() { n.send("WATCHDOG=1") }

func (n *Notifier) send(message string) {
	if n != nil {
		n.sender.send(message)
	}
}

// Close waits up to 1 s until everything is sent.
func (n *Notifier) Close() {
	if n != nil {
		n.sender.close()
	}
}
