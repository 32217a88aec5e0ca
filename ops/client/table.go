package client

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// WriteTable writes the status for people, as the command prefork status prints
// it.
func (s *Status) WriteTable(w io.Writer) error {
	var b strings.Builder
	b.WriteString(line(s.Name, "pid "+strconv.Itoa(s.PID), s.version(), "up "+Age(s.Now.Sub(s.Started)), s.soleSockets()))
	if s.ofOne() {
		s.writeLines(&b)
	}
	for i := range s.Pools {
		p := &s.Pools[i]
		if s.ofOne() {
			break
		}
		if len(s.Pools) > 1 {
			b.WriteString("\n" + line("pool "+strconv.Quote(p.Name), p.sockets()))
		}
		b.WriteString(p.headline(s.Now))
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, columns)
		for _, row := range p.rows(s.Now) {
			fmt.Fprintln(t, row.text)
		}
		t.Flush()
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const columns = "SLOT\tID\tPID\tGEN\tSTATE\tST\tREQUESTS\tMEMORY\tAGE"

// ofOne reports whether there are several pools of one worker each, as a program
// that keeps services has.
func (s *Status) ofOne() bool {
	return len(s.Pools) > 1 && !slices.ContainsFunc(s.Pools, func(p Pool) bool { return p.Limits.MaxWorkers > 1 })
}

// writeLines writes a line for each worker of all pools.
func (s *Status) writeLines(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "POOL\t"+columns)
	for i := range s.Pools {
		p := &s.Pools[i]
		rows := p.rows(s.Now)
		if len(rows) == 0 {
			rows = []row{{text: "-\t-\t-\t-\t" + p.Condition(s.Now) + "\t-\t-\t-\t-"}}
		}
		for _, row := range rows {
			fmt.Fprintln(t, clean(p.Name)+"\t"+row.text)
		}
	}
}

func line(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return clean(strings.Join(parts, "  ")) + "\n"
}

// clean replaces control characters, which names and errors can contain.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func (s *Status) version() string {
	if s.Revision == "" {
		return s.Version
	}
	return strings.TrimSpace(fmt.Sprintf("%s (%.7s)", s.Version, s.Revision))
}

func (s *Status) soleSockets() string {
	if len(s.Pools) != 1 {
		return ""
	}
	return s.Pools[0].sockets()
}

func (p *Pool) sockets() string {
	var all []string
	for _, l := range p.Sockets {
		text := l.Network + " " + l.Address
		if l.Waiting >= 0 && l.Backlog >= 0 {
			text += fmt.Sprintf(" (%d of %d waiting)", l.Waiting, l.Backlog)
		}
		all = append(all, text)
	}
	return strings.Join(all, "  ")
}

func (p *Pool) headline(now time.Time) string {
	workers := fmt.Sprintf("%d of %d ready, %d busy", p.Counts.Ready, p.Limits.MaxWorkers, p.Counts.Busy)
	if p.Counts.Waiting > 0 {
		workers += fmt.Sprintf(", %d waiting", p.Counts.Waiting)
	}
	return line("generation "+strconv.Itoa(p.Generation)+", "+p.Condition(now), workers,
		strconv.FormatUint(p.Requests, 10)+" requests", p.Change.text(), p.LastReload.text("reload", now), p.LastUpgrade.text("upgrade", now))
}

// Condition returns the condition of the pool for people, such as "settled".
func (p *Pool) Condition(now time.Time) string {
	var text string
	switch {
	case p.Stopping != nil:
		text = "stopping"
	case p.Settled:
		text = "settled"
	default:
		text = "not settled"
	}
	if p.Pausing {
		text += ", pausing"
	}
	switch {
	case p.Hook != nil:
		text += fmt.Sprintf(", in the hook %s since %s", p.Hook.Name, Age(now.Sub(p.Hook.Since)))
	case p.Call == "":
		text += ", no blocking call is under way"
	}
	return text
}

func (c *Change) text() string {
	if c == nil {
		return ""
	}
	text := fmt.Sprintf("%s to generation %d: %d of %d replaced", c.Kind, c.Generation, c.Replaced, c.Of)
	if c.Successor != 0 {
		text = fmt.Sprintf("%s by successor %d", c.Kind, c.Successor)
	}
	return text
}

func (o *Outcome) text(kind string, now time.Time) string {
	if o == nil || o.Outcome == Done {
		return ""
	}
	return fmt.Sprintf("last %s %s %s ago: %s", kind, o.Outcome, Age(now.Sub(o.At)), o.Error)
}

// row is a line of the table: a worker, or a slot that waits.
type row struct {
	slot, id int
	text     string
}

func (p *Pool) rows(now time.Time) (rows []row) {
	slots := make(map[int]Slot)
	for _, s := range p.Slots {
		slots[s.Slot] = s
	}
	for _, w := range p.Workers {
		slot := strconv.Itoa(w.Slot)
		if w.Slot < 0 {
			slot = "-"
		}
		state := clean(w.State)
		if w.Paused {
			state += ", paused"
		}
		if w.Deadline != nil {
			state += ", " + Age(w.Deadline.Sub(now)) + " left"
		}
		memory := "-"
		if w.Memory != nil {
			memory = Bytes(*w.Memory)
		}
		text := fmt.Sprintf("%s\t%d\t%d\t%d\t%s\t%s\t%d\t%s\t%s", slot, w.ID, w.PID, w.Generation, state,
			visible(w.Status), w.Requests, memory, Age(now.Sub(w.Started)))
		if s := slots[w.Slot]; w.Slot >= 0 && s.Crashes > 0 {
			text += "\t" + s.last(now)
		}
		rows = append(rows, row{w.Slot, w.ID, text})
	}
	for _, s := range p.Slots {
		state := s.Vacancy(now)
		if state == "" || s.WaitsUntil == nil && hasWorker(p, s.Slot) {
			continue
		}
		slot := strconv.Itoa(s.Slot)
		if s.Slot < 0 {
			slot = "-"
		}
		rows = append(rows, row{s.Slot, 0, fmt.Sprintf("%s\t-\t-\t-\t%s\t-\t-\t-\t%s", slot, state, s.last(now))})
	}
	slices.SortFunc(rows, func(a, b row) int {
		// Slot -1, of standbys, comes last.
		return cmp.Or(cmp.Compare(uint(a.slot), uint(b.slot)), cmp.Compare(a.id, b.id))
	})
	return rows
}

// Vacancy says why a slot without a worker has none, for people: "waits 11s", "done"
// or "held". It is empty if the slot is about to get one.
func (s Slot) Vacancy(now time.Time) string {
	switch {
	case s.WaitsUntil != nil:
		return "waits " + Age(s.WaitsUntil.Sub(now))
	case s.Done:
		return "done"
	case s.Held:
		return "held"
	}
	return ""
}

func hasWorker(p *Pool, slot int) bool {
	return slices.ContainsFunc(p.Workers, func(w Worker) bool { return w.Slot == slot })
}

// last describes the last exit in the slot.
func (s Slot) last(now time.Time) string {
	if s.LastExit == nil {
		return ""
	}
	text := fmt.Sprintf("last: %s (%s) %s ago", s.LastExit.Reason, s.LastExit.Status(), Age(now.Sub(s.LastExit.At)))
	if s.Crashes > 1 {
		text += fmt.Sprintf(", %d in a row", s.Crashes)
	}
	return clean(text)
}

// Status returns how the process ended, such as "exit code 3" or "SIGKILL".
func (e *Exit) Status() string {
	switch {
	case e.Signal == "":
		return "exit code " + strconv.Itoa(e.Code)
	case e.CoreDump:
		return e.Signal + ", core dumped"
	}
	return e.Signal
}

// visible returns a status that does not disturb a table.
func visible(status string) string {
	switch r, _ := utf8.DecodeRuneInString(status); {
	case status == "":
		return "."
	case r > ' ' && r < 0x7f:
		return string(r)
	}
	return "?"
}

// Age returns a duration in its two greatest units, such as "3d4h" or "12s". A
// negative one is "0s".
func Age(d time.Duration) string {
	s := int64(max(d, 0).Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return two(s/60, "m", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s%3600/60, "m")
	}
	return two(s/86400, "d", s%86400/3600, "h")
}

func two(a int64, unit string, b int64, smaller string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unit)
	}
	return fmt.Sprintf("%d%s%d%s", a, unit, b, smaller)
}

// Bytes returns a number of bytes with a binary unit, such as "1.3M".
func Bytes(n int64) string {
	value, unit := float64(n), 0
	for value >= 999.5 && unit < 5 {
		value, unit = value/1024, unit+1
	}
	switch {
	case unit == 0:
		return strconv.FormatInt(n, 10)
	case value < 9.95:
		return fmt.Sprintf("%.1f%c", value, " KMGTP"[unit])
	}
	return fmt.Sprintf("%.0f%c", value, " KMGTP"[unit])
}
