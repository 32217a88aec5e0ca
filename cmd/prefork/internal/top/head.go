package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// title is the line about the process.
func title(s *client.Status) string {
	version := s.Version
	if s.Revision != "" {
		version = fmt.Sprintf("%s (%.7s)", s.Version, s.Revision)
	}
	parts := []string{s.Name, "pid " + strconv.Itoa(s.PID), version, "up " + client.Age(s.Now.Sub(s.Started))}
	return join(parts...)
}

// A headLine is a line about a pool, and whether it needs attention.
type headLine struct {
	text string
	bad  bool
}

// head returns at most a number of lines about a pool, for a screen of a width; 0
// means any. Fewer lines have less in them.
func head(p *client.Pool, now time.Time, r *rates, label string, lines, width int) []headLine {
	state := fmt.Sprintf("generation %d, %s", p.Generation, p.Condition(now))
	counts := fmt.Sprintf("%d/%d ready, %d busy", p.Counts.Ready, p.Limits.MaxWorkers, p.Counts.Busy)
	if p.Counts.Waiting > 0 {
		counts += fmt.Sprintf(", %d waiting", p.Counts.Waiting)
	}
	if lines < 3 { // a small terminal: the counts matter most
		short := "settled"
		if !p.Settled {
			short = "not settled"
		}
		if c := p.Change; c != nil {
			short = fmt.Sprintf("%s %s", c.Kind, bar(c.Replaced, c.Of, 6))
		}
		all := []headLine{{join(label+counts, fmt.Sprintf("gen %d %s", p.Generation, short)), !p.Settled}}
		return append(all, headLine{text: load(p, r, 8)})[:max(1, lines)]
	}
	all := []headLine{{join(label+state, counts), !p.Settled}}
	spark := historyLength
	if width > 0 {
		spark = min(max(width-60, 8), historyLength)
	}
	all = append(all, headLine{text: load(p, r, spark)})
	if c := p.Change; c != nil {
		all = append(all, headLine{change(c, now), true})
	}
	if text := failure(p, now); text != "" {
		all = append(all, headLine{text, true})
	}
	return all[:min(len(all), lines)]
}

// headOfAll is the line about many pools.
func headOfAll(pools []client.Pool) string {
	ready, workers, waiting, settled := 0, 0, 0, 0
	for i := range pools {
		p := &pools[i]
		ready, workers, waiting = ready+p.Counts.Ready, workers+p.Limits.MaxWorkers, waiting+p.Counts.Waiting
		if p.Settled {
			settled++
		}
	}
	text := fmt.Sprintf("%d of %d pools settled", settled, len(pools))
	counts := fmt.Sprintf("%d/%d ready", ready, workers)
	if waiting > 0 {
		counts += fmt.Sprintf(", %d waiting", waiting)
	}
	return join(text, counts)
}

func change(c *client.Change, now time.Time) string {
	text := fmt.Sprintf("%s to %d", c.Kind, c.Generation)
	if c.Successor != 0 {
		text = fmt.Sprintf("%s, successor %d", c.Kind, c.Successor)
	}
	if c.Of > 0 {
		text += fmt.Sprintf(" %s %d of %d", bar(c.Replaced, c.Of, 10), c.Replaced, c.Of)
	}
	return text + " for " + client.Age(now.Sub(c.Began))
}

// load is the line with the rates, the memory and the queues.
func load(p *client.Pool, r *rates, spark int) string {
	var memory int64
	known := false
	for _, w := range p.Workers {
		if w.Memory != nil {
			memory, known = memory+*w.Memory, true
		}
	}
	var parts []string
	if pr := r.pools[p.Name]; pr != nil && pr.known {
		parts = append(parts, rate(pr.requests)+" req/s", sparkline(pr.history, spark), fmt.Sprintf("CPU %s%%", rate(pr.cpu*100)))
	} else {
		parts = append(parts, fmt.Sprintf("%d requests", p.Requests))
	}
	if known {
		parts = append(parts, "memory "+client.Bytes(memory))
	}
	for _, s := range p.Sockets {
		text := s.Network + " " + s.Address
		if s.Waiting >= 0 {
			text += fmt.Sprintf(" %d/%d waiting", s.Waiting, s.Backlog)
		}
		parts = append(parts, text)
	}
	return join(parts...)
}

// failure describes the last reload or upgrade if it has failed.
func failure(p *client.Pool, now time.Time) string {
	var parts []string
	for _, o := range []struct {
		kind string
		*client.Outcome
	}{{"reload", p.LastReload}, {"upgrade", p.LastUpgrade}} {
		if o.Outcome != nil && o.Outcome.Outcome == client.Failed {
			parts = append(parts, fmt.Sprintf("last %s failed %s ago: %s", o.kind, client.Age(now.Sub(o.At)), o.Error))
		}
	}
	return join(parts...)
}

func join(parts ...string) string {
	var all []string
	for _, p := range parts {
		if p != "" {
			all = append(all, p)
		}
	}
	return clean(strings.Join(all, "  "))
}
