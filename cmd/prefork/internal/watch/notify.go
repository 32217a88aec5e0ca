package watch

import (
	"fmt"
	"strings"
	"time"

	"github.com/prefork-go/prefork/ops/monitor"
	"github.com/prefork-go/prefork/ops/systemd"
)

// A reporter notifies systemd of the services. Its channels are nil, and its methods
// have no effect, if systemd has not asked for it.
type reporter struct {
	n *systemd.Notifier
	m *monitor.Monitor

	ready, stopping bool
	text            string // the last status

	changed <-chan struct{}
	pause   <-chan time.Time // then changes count again
	scanned <-chan struct{}  // the end of a reload
	alive   <-chan time.Time
	ticker  *time.Ticker
}

// Changes are reported together: until READY=1 at most 50 ms later, then each second.
const (
	startPeriod  = 50 * time.Millisecond
	statusPeriod = time.Second
)

func newReporter(n *systemd.Notifier, m *monitor.Monitor) *reporter {
	r := &reporter{n: n, m: m}
	if n == nil {
		return r
	}
	if d := n.Watchdog(); d > 0 {
		r.ticker = time.NewTicker(max(d/3, time.Millisecond))
		r.alive = r.ticker.C
	}
	r.look()
	return r
}

// wait has the next look come when something changes, but not at once.
func (r *reporter) wait() {
	r.changed, r.pause = nil, time.After(statusPeriod)
	if !r.ready {
		r.pause = time.After(startPeriod)
	}
}

// look reports the services as they are.
func (r *reporter) look() {
	if r.n == nil {
		return
	}
	r.changed, r.pause = r.m.Changed(), nil // before the services are looked at
	started := r.m.Started()
	text := r.status()
	switch {
	case started && !r.ready && !r.stopping:
		r.ready = true
		r.n.Ready(text)
	case text != r.text:
		r.n.Status(text)
	}
	r.text = text
}

// isAlive feeds the watchdog after it has looked at each service: one that holds its
// mutex forever would end that.
func (r *reporter) isAlive() {
	r.m.Services()
	r.n.Alive()
}

// rescan looks at the directory, which is a reload. It ends when the directory was
// scanned: what has changed settles, and a service that starts may never be up.
func (r *reporter) rescan() {
	scanned := r.m.Rescan()
	if r.n != nil && r.ready && !r.stopping {
		r.scanned = scanned
		r.n.Reloading()
	}
}

// reloaded reports the end of a reload.
func (r *reporter) reloaded() {
	r.scanned = nil
	r.n.Ready(r.text)
}

// stop reports, once, that the program stops.
func (r *reporter) stop() {
	if r.n == nil || r.stopping {
		return
	}
	r.stopping, r.scanned = true, nil
	r.text = r.status()
	r.n.Stopping(r.text)
}

func (r *reporter) close() {
	r.stop()
	if r.ticker != nil {
		r.ticker.Stop()
	}
	r.n.Close()
}

func (r *reporter) status() string { return summary(r.m.Services(), r.stopping) }

// summary describes the services in a line: "12 up, 1 down, 2 failed: db, web".
func summary(all []monitor.Status, stopping bool) string {
	up, down := 0, 0
	var failed []string
	for _, s := range all {
		switch {
		case s.PID != 0:
			up++
		case s.Up || s.GaveUp || s.Problem != "":
			failed = append(failed, s.Name)
		default:
			down++
		}
	}
	if stopping {
		return fmt.Sprintf("stopping, %d services left", up)
	}
	text := fmt.Sprintf("%d up", up)
	if down > 0 {
		text += fmt.Sprintf(", %d down", down)
	}
	if len(failed) > 0 {
		text += fmt.Sprintf(", %d failed: %s", len(failed), strings.Join(failed, ", "))
	}
	return text
}
