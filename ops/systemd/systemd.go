// Package systemd notifies systemd of the state of a prefork program: that it is
// ready, reloading or stopping, how many workers it has, and that its loop turns.
// It has an effect only if systemd started the program with NOTIFY_SOCKET set, in
// a unit with Type=notify or Type=notify-reload.
//
//	detach, err := systemd.Attach(systemd.Config{}, pm) // after New
//	if err != nil { log.Print(err) }
//	defer detach()
//
// With several pools the program is ready when each pool has been, and stopping
// when the last pool stops. A pool that has ended is no longer waited for.
//
// The manager alone sends messages, and during an upgrade one of the two. The
// Manager itself reports a new main process (MAINPID), with or without this
// package. Below a reaper (prefork.Config.Reaper) the unit needs NotifyAccess=all.
//
// With WatchdogSec= in the unit, systemd ends a program if the loop of a pool
// stands still for that long, in a hook for example.
package systemd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
)

// Ready is when systemd is notified that the program has started, so that units
// which are ordered after it start.
type Ready int

const (
	First Ready = iota // each pool has had a worker that is ready
	All                // each pool has settled: all its workers were ready
)

// Config holds the options. The zero value is valid.
type Config struct {
	Ready Ready
}

const statusPeriod = time.Second // between two messages that only change the status

// Attach notifies systemd of the state of Managers until detach is called. It
// should be called after prefork.New and before Run. The caller should call detach
// after Run or WaitAllChildren has returned.
//
// Attach is a no-op without NOTIFY_SOCKET in the environment, and in a worker. It
// returns an error if a variable of systemd is malformed or its socket cannot be
// reached, and notifies all the same as far as possible.
func Attach(cfg Config, pms ...*prefork.Manager) (detach func() error, err error) {
	if prefork.IsWorker() || len(pms) == 0 || os.Getenv("NOTIFY_SOCKET") == "" {
		return func() error { return nil }, nil
	}
	n := &notifier{cfg: cfg, wake: make(chan struct{}, 1), closing: make(chan struct{})}
	for _, pm := range pms {
		c := pm.Config()
		n.pools = append(n.pools, &pool{pm: pm, name: c.Name, shutdownSignal: c.ShutdownSignal})
	}
	for i, pm := range pms { // events may come at once
		p := n.pools[i]
		var now prefork.Snapshot
		now, p.unfollow = pm.Follow(func(r prefork.Record) { n.note(p, r.Event) })
		n.adopt(p, now)
	}
	var unreachable error
	n.sender, unreachable = newSender(pms[0].Config().Logger)
	n.wg.Go(n.run)
	period, err := watchdogPeriod(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), isSuccessor())
	if period > 0 {
		n.wg.Go(func() { n.feedWatchdog(period) })
	}
	if err = errors.Join(unreachable, err); err != nil {
		err = fmt.Errorf("systemd: %w", err)
	}
	return sync.OnceValue(n.close), err
}

// isSuccessor reports whether this process is a successor that has not taken over
// yet.
func isSuccessor() bool {
	select {
	case <-prefork.TookOver():
		return false
	default:
		return true
	}
}

// A pool is a Manager and its state, which notifier.mu guards.
type pool struct {
	pm             *prefork.Manager
	name           string
	shutdownSignal os.Signal
	unfollow       func()

	hadReady  bool // a worker was ready
	settled   bool // the pool has settled once
	stopping  bool
	ended     bool
	reloading bool
	failure   string // of the last reload
}

// A notifier turns events into messages.
type notifier struct {
	*sender
	cfg   Config
	pools []*pool

	mu       sync.Mutex
	pending  []string // messages that the next turn of run sends
	stopping bool
	noted    bool // counts may have changed
	ready    bool // READY=1 was sent

	wake    chan struct{}
	closing chan struct{}
	wg      sync.WaitGroup
}

// adopt takes the state of a pool that may be at work already.
func (n *notifier) adopt(p *pool, now prefork.Snapshot) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.hadReady = p.hadReady || readyWorkers(now) > 0
	p.settled = p.settled || now.Settled
}

// note takes an event. It runs in the loop of the Manager.
func (n *notifier) note(p *pool, ev prefork.Event) {
	n.mu.Lock()
	n.noted = true
	switch e := ev.(type) {
	case prefork.ReloadEvent:
		n.beginReload(p)
	case prefork.ReloadFailedEvent:
		n.endReload(p, fmt.Sprintf("reload failed: %v", e.Err))
	case prefork.RollFailedEvent:
		n.endReload(p, e.String())
	case prefork.StateEvent:
		p.hadReady = p.hadReady || e.Worker.State == prefork.StateReady
	case prefork.SettledEvent:
		p.settled = true
		if p.reloading {
			n.endReload(p, "")
		}
	case prefork.SignalEvent:
		if e.Received == p.shutdownSignal {
			n.stop(p)
		}
	case prefork.StartedEvent:
		p.stopping, p.ended = false, false
	case prefork.EndedEvent:
		p.ended = true
		n.stop(p)
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// put adds a message. The oldest is dropped if systemd does not take them.
func (n *notifier) put(message string) {
	if len(n.pending) == queueSize {
		n.pending = n.pending[1:]
	}
	n.pending = append(n.pending, message)
}

func (n *notifier) beginReload(p *pool) {
	p.failure = ""
	if p.reloading || n.stopping || !n.ready {
		return
	}
	first := !n.reloading()
	p.reloading = true
	if first { // the time must be in the same datagram
		n.put("RELOADING=1\n" + monotonicUsec() + "STATUS=reloading")
	}
}

func (n *notifier) endReload(p *pool, failure string) {
	p.failure = failure
	was := p.reloading
	p.reloading = false
	if n.stopping || !n.ready || n.reloading() {
		return
	}
	switch {
	case was && failure == "":
		n.put(needsStatus)
	case was:
		n.put("READY=1\nSTATUS=" + oneLine(p.label()+failure))
	case failure != "": // up to 5 s after the roll was complete
		n.put("STATUS=" + oneLine(p.label()+failure))
	}
}

// needsStatus is a message whose text run adds.
const needsStatus = "READY=1"

func (n *notifier) reloading() bool {
	for _, p := range n.pools {
		if p.reloading {
			return true
		}
	}
	return false
}

// stop notes that a pool stops. The program does when no other pool goes on.
func (n *notifier) stop(p *pool) {
	p.stopping = true
	goesOn := func(p *pool) bool { return !p.stopping }
	switch {
	case n.stopping || prefork.HandedOver():
	case slices.ContainsFunc(n.pools, goesOn):
		if p.reloading {
			n.endReload(p, "")
		}
	default:
		n.stopping = true
		n.put("STOPPING=1")
	}
}

// run sends the messages of events at once, and the status at most once a second.
func (n *notifier) run() {
	select { // a successor is silent before
	case <-prefork.TookOver():
	case <-n.closing:
		return
	}
	var due <-chan time.Time
	last, status := time.Now(), "" // a start that takes longer shows how far it is
	for closing := false; ; {
		n.mu.Lock()
		pending, noted := n.pending, n.noted
		n.pending, n.noted = nil, false
		n.mu.Unlock()
		text := status
		if noted || len(pending) > 0 || !n.isReady() {
			text = n.status()
		}
		for _, message := range pending {
			if message == needsStatus || message == "STOPPING=1" {
				message += "\nSTATUS=" + text
				status, last = text, time.Now()
			}
			n.send(message)
		}
		switch {
		case n.becomesReady():
			n.send("READY=1\nSTATUS=" + text)
			status, last = text, time.Now()
		case text == status:
		case time.Since(last) >= statusPeriod:
			n.send("STATUS=" + text)
			status, last = text, time.Now()
		case due == nil:
			due = time.After(statusPeriod - time.Since(last))
		}
		if closing {
			return
		}
		select {
		case <-n.wake:
		case <-due:
			due = nil
			n.mu.Lock()
			n.noted = true
			n.mu.Unlock()
		case <-n.closing:
			closing = true
		}
	}
}

func (n *notifier) isReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ready
}

// becomesReady reports, once, whether the program has started.
func (n *notifier) becomesReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ready || n.stopping {
		return false
	}
	for _, p := range n.pools {
		if !p.settled && (n.cfg.Ready == All || !p.hadReady) {
			return false
		}
	}
	n.ready = true
	return true
}

func readyWorkers(snap prefork.Snapshot) (ready int) {
	for _, w := range snap.Workers {
		if w.State == prefork.StateReady {
			ready++
		}
	}
	return ready
}

// status describes the pools in one line.
func (n *notifier) status() string {
	n.mu.Lock()
	stopping := n.stopping
	pools := make([]pool, len(n.pools))
	for i, p := range n.pools {
		pools[i] = *p
	}
	n.mu.Unlock()
	if stopping {
		left := 0
		for _, p := range pools {
			left += p.pm.NumWorkers()
		}
		return fmt.Sprintf("stopping, %d workers left", left)
	}
	var texts []string
	for _, p := range pools {
		texts = append(texts, p.label()+p.status())
	}
	return oneLine(strings.Join(texts, "; "))
}

func (p *pool) status() string {
	snap := p.pm.Snapshot()
	switch {
	case p.ended:
		return "stopped"
	case p.stopping:
		return fmt.Sprintf("stopping, %d workers left", len(snap.Workers))
	}
	text := fmt.Sprintf("%d of %d workers ready, generation %d", readyWorkers(snap), snap.MaxWorkers, snap.Serving)
	if p.failure != "" {
		text += ", " + p.failure
	}
	return text
}

// label begins a text about the pool, if it has a name.
func (p *pool) label() string {
	if p.name == "" {
		return ""
	}
	return p.name + ": "
}

// oneLine keeps the text of an error from being read as another assignment.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + " …"
	}
	return text
}

// maxText bounds a status: systemd takes datagrams of 4 KiB.
const maxText = 2 << 10

func (n *notifier) close() error {
	for _, p := range n.pools {
		p.unfollow()
	}
	close(n.closing)
	n.wg.Wait()
	n.sender.close()
	return nil
}
