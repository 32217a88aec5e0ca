package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prefork-go/prefork/ops/client"
)

// eventTypes are the types that events can have.
var eventTypes = []string{
	"worker", "exit", "generation", "delay", "spawn-failed", "signal", "resize", "hold", "done", "note", "reload", "settled", "reload-failed", "rolled",
	"roll-failed", "crash-loop", "leftover", "pause", "paused", "resume", "upgrade", "upgraded", "upgrade-failed", "manager-started",
	"manager-ended", "pool-added", "pool-removed", "end", "lost",
}

type eventsOptions struct {
	follow bool
	last   int
	types  []string
}

// An eventPrinter prints events, each once although streams overlap.
type eventPrinter struct {
	*app
	types []string
	pools []string // of the manager

	mu   sync.Mutex
	seen map[streamKey]uint64
}

// A streamKey is a source of numbered events.
type streamKey struct {
	pid  int
	pool string
}

func (a *app) events(opt eventsOptions) error {
	if opt.last < 0 {
		return usagef("-n %d: it must not be negative", opt.last)
	}
	for _, typ := range opt.types {
		if !slices.Contains(eventTypes, typ) {
			return usagef("--type %s: the types are %s", typ, strings.Join(eventTypes, ", "))
		}
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	st, err := a.status(c, false)
	if err != nil { // a manager that cannot answer shows here
		return err
	}
	p := &eventPrinter{app: a, types: opt.types, seen: make(map[streamKey]uint64)}
	for _, pool := range st.Pools {
		p.pools = append(p.pools, pool.Name)
	}
	past, err := p.past(c)
	if err != nil {
		return a.failure(err)
	}
	for _, e := range past[max(0, len(past)-opt.last):] {
		p.print(e)
	}
	if !opt.follow {
		return nil
	}
	return p.follow(c)
}

func (p *eventPrinter) wanted(e client.Event) bool {
	return e.Type != client.TypeBeat && e.Type != client.TypeState && (len(p.types) == 0 || slices.Contains(p.types, e.Type))
}

// past returns the events that the manager still has.
func (p *eventPrinter) past(c *client.Client) (past []client.Event, err error) {
	ctx, cancel := query()
	defer cancel()
	for e, err := range c.Events(ctx, client.EventsOptions{Pool: p.pool, Replay: true, NoFollow: true}) {
		if err != nil {
			return past, err
		}
		p.isNew(e)
		if p.wanted(e) {
			past = append(past, e)
		}
	}
	return past, nil
}

// isNew notes an event, and reports whether it was not seen before.
func (p *eventPrinter) isNew(e client.Event) bool {
	if e.Seq == 0 {
		return true
	}
	key := streamKey{e.PID, e.Pool}
	if e.Seq <= p.seen[key] {
		return false
	}
	p.seen[key] = e.Seq
	return true
}

// since returns the number of an event of a process up to which all were seen, in
// every pool.
func (p *eventPrinter) since(pid int) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pools) == 0 {
		return 0
	}
	since := ^uint64(0)
	for _, pool := range p.pools { // of those that have come since, too
		since = min(since, p.seen[streamKey{pid, pool}])
	}
	return since
}

// follow prints the events of the manager and of its successors, until the last
// of them has stopped.
func (p *eventPrinter) follow(c *client.Client) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var old sync.WaitGroup // streams of managers that have a successor
	defer old.Wait()
	pid := c.Peer().PID
	for {
		upgraded := make(chan int, 1)
		ended := make(chan error, 1)
		go func() { ended <- p.stream(ctx, c, pid, func(successor int) { upgraded <- successor }) }()
		select {
		case pid = <-upgraded:
			old.Go(func() { <-ended })
		case err := <-ended:
			if !errors.Is(err, errAgain) {
				return err
			}
			pid = c.Peer().PID
		}
	}
}

// errAgain means that events are missing, so that the stream begins again.
var errAgain = errors.New("events are missing")

// stream prints the events of one connection, from those on that were not seen of
// the process with this pid. It calls upgraded once a successor accepts.
func (p *eventPrinter) stream(ctx context.Context, c *client.Client, pid int, upgraded func(successor int)) error {
	var why client.End
	for e, err := range c.Events(ctx, client.EventsOptions{Pool: p.pool, Replay: true, Since: p.since(pid), PID: pid}) {
		if err != nil {
			if why.Reason != "" {
				return nil
			}
			p.peer = c.Peer()
			return p.failure(err)
		}
		p.mu.Lock()
		switch e.Type {
		case client.TypePoolAdded:
			p.pools = append(p.pools, e.Pool)
		case client.TypePoolRemoved:
			p.pools = slices.DeleteFunc(p.pools, func(name string) bool { return name == e.Pool })
			delete(p.seen, streamKey{e.PID, e.Pool}) // the next pool of this name counts from 1
		}
		if p.isNew(e) && p.wanted(e) {
			p.print(e)
		}
		p.mu.Unlock()
		switch e.Type {
		case client.TypeLost:
			return errAgain
		case client.TypeEnd:
			if json.Unmarshal(e.Data, &why); why.Reason == client.Upgraded {
				upgraded(why.Successor)
			}
		}
	}
	if why.Reason == "" {
		return &exitError{code: exitNoAnswer, text: fmt.Sprintf("%sthe events ended: manager %d was killed", p.prefix(), pid)}
	}
	return nil
}

func (p *eventPrinter) print(e client.Event) {
	if p.json {
		p.printJSON(e)
		return
	}
	pool := ""
	if e.Pool != "" {
		pool = e.Pool + ": "
	}
	fmt.Fprintf(p.out, "%s  %-15s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Type, oneLine(pool+e.Text))
}

// oneLine replaces what could disturb a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
