package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prefork-go/prefork/ops/client"
)

// A row is a worker, or a slot that waits for one.
type row struct {
	pool               string // shown in the rows of all pools
	slot, id, pid, gen int
	state, kind        string // kind is the state alone
	status             string
	memory             int64
	age                time.Duration
	restarts           int
	last               string
	workerRates
	worker bool
}

// rowsOf returns the rows of a pool, by slot.
func rowsOf(p *client.Pool, now time.Time, r *rates) []row {
	slots := make(map[int]*client.Slot, len(p.Slots))
	for i := range p.Slots {
		slots[p.Slots[i].Slot] = &p.Slots[i]
	}
	rows := make([]row, 0, len(p.Workers)+len(p.Slots))
	for _, w := range p.Workers {
		one := row{
			pool: p.Name, slot: w.Slot, id: w.ID, pid: w.PID, gen: w.Generation, state: clean(w.State), kind: w.State, status: visible(w.Status),
			memory: -1, age: now.Sub(w.Started), workerRates: r.workers[workerKey{p.Name, w.ID}], worker: true,
		}
		if w.Memory != nil {
			one.memory = *w.Memory
		}
		if w.Paused {
			one.state += ", paused"
		}
		if w.Deadline != nil {
			one.state += ", " + client.Age(w.Deadline.Sub(now)) + " left"
		}
		if s := slots[w.Slot]; s != nil && w.Slot >= 0 {
			one.restarts, one.last = max(s.Spawns-1, 0), lastExit(s, now)
		}
		rows = append(rows, one)
	}
	for i := range p.Slots {
		s := &p.Slots[i]
		state := s.Vacancy(now)
		if state == "" || s.WaitsUntil == nil && slices.ContainsFunc(p.Workers, func(w client.Worker) bool { return w.Slot == s.Slot }) {
			continue
		}
		rows = append(rows, row{
			pool: p.Name, slot: s.Slot, id: -1, pid: -1, gen: -1, state: state, kind: "waits", status: "-",
			memory: -1, age: -1, restarts: max(s.Spawns-1, 0), last: lastExit(s, now),
		})
	}
	slices.SortStableFunc(rows, bySlot)
	return rows
}

func lastExit(s *client.Slot, now time.Time) string {
	if s.LastExit == nil {
		return ""
	}
	text := fmt.Sprintf("%s (%s) %s ago", s.LastExit.Reason, s.LastExit.Status(), client.Age(now.Sub(s.LastExit.At)))
	if s.Crashes > 1 {
		text += fmt.Sprintf(", %d in a row", s.Crashes)
	}
	return clean(text)
}

// bySlot orders rows by pool and slot; standbys have none and come last.
func bySlot(a, b row) int {
	return cmp.Or(cmp.Compare(a.pool, b.pool), cmp.Compare(uint(a.slot), uint(b.slot)), cmp.Compare(a.id, b.id))
}

// sortOrders are the orders of the key s.
var sortOrders = []struct {
	name    string
	compare func(a, b row) int
}{
	{"slot", bySlot},
	{"requests/s", func(a, b row) int { return cmp.Compare(b.requests, a.requests) }},
	{"memory", func(a, b row) int { return cmp.Compare(b.memory, a.memory) }},
	{"CPU", func(a, b row) int { return cmp.Compare(b.cpu, a.cpu) }},
	{"age", func(a, b row) int { return cmp.Compare(b.age, a.age) }},
	{"restarts", func(a, b row) int { return cmp.Compare(b.restarts, a.restarts) }},
	{"state", func(a, b row) int { return cmp.Compare(a.state, b.state) }},
}

// columns in their order. A column that does not fit is left out, the one with the
// greatest drop first.
var columns = []struct {
	name  string
	drop  int
	right bool
	cell  func(r *row) string
}{
	{"POOL", 0, false, func(r *row) string { return clean(r.pool) }},
	{"SLOT", 0, true, func(r *row) string { return number(r.slot) }},
	{"ID", 1, true, func(r *row) string { return number(r.id) }},
	{"PID", 5, true, func(r *row) string { return number(r.pid) }},
	{"GEN", 6, true, func(r *row) string { return number(r.gen) }},
	{"STATE", 0, false, func(r *row) string { return r.state }},
	{"ST", 8, false, func(r *row) string { return r.status }},
	{"REQ/S", 2, true, func(r *row) string { return r.rate(r.requests) }},
	{"MEM", 3, true, func(r *row) string { return bytes(r.memory) }},
	{"CPU%", 4, true, func(r *row) string { return r.rate(r.cpu * 100) }},
	{"AGE", 3, true, func(r *row) string { return age(r.age) }},
	{"RESTARTS", 9, true, func(r *row) string { return strconv.Itoa(r.restarts) }},
	{"LAST EXIT", 7, false, func(r *row) string { return r.last }},
}

const (
	gap       = 2  // between two columns
	leastLast = 21 // the last column is worth this at least
)

func (r *row) rate(v float64) string {
	if !r.known || !r.worker {
		return "-"
	}
	return rate(v)
}

// rate returns a number with about three digits.
func rate(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 99.5:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v < 99_950:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v/1000, 'f', 0, 64) + "k"
}

func number(n int) string {
	if n < 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func bytes(n int64) string {
	if n < 0 {
		return "-"
	}
	return client.Bytes(n)
}

func age(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	return client.Age(d)
}

// table lays the rows out in a width; 0 means that every column fits. The first
// line is the header. The pools are a column if the rows are of several.
func table(rows []row, width int, pools bool) []string {
	cells := make([][]string, len(columns))
	widths := make([]int, len(columns))
	shown := make([]bool, len(columns))
	for c, column := range columns {
		shown[c], widths[c] = c > 0 || pools, utf8.RuneCountInString(column.name)
		cells[c] = make([]string, len(rows))
		for i := range rows {
			cells[c][i] = column.cell(&rows[i])
			widths[c] = max(widths[c], utf8.RuneCountInString(cells[c][i]))
		}
	}
	last := len(columns) - 1
	total := func() (n int) {
		for c := range columns {
			if shown[c] {
				n += widths[c] + gap
			}
		}
		return n - gap
	}
	wanted := widths[last]
	if over := total() - width; width > 0 && over > 0 {
		widths[last] = max(widths[last]-over, min(widths[last], leastLast))
	}
	for drop := 9; width > 0 && total() > width && drop > 0; drop-- {
		for c, column := range columns {
			if column.drop == drop && total() > width {
				shown[c] = false
			}
		}
	}
	if room := width - total(); width > 0 && room > 0 {
		widths[last] = min(wanted, widths[last]+room)
	}
	lines := make([]string, 0, len(rows)+1)
	var b strings.Builder
	for i := -1; i < len(rows); i++ {
		b.Reset()
		for c, column := range columns {
			if !shown[c] {
				continue
			}
			text := column.name
			if i >= 0 {
				text = cells[c][i]
			}
			if b.Len() > 0 {
				b.WriteString("  ")
			}
			text = fit(text, widths[c])
			pad := strings.Repeat(" ", max(0, widths[c]-utf8.RuneCountInString(text)))
			if column.right {
				text = pad + text
			} else if c != last {
				text += pad
			}
			b.WriteString(text)
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// fit shortens a text to a width.
func fit(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	runes := []rune(text)
	return string(runes[:width-1]) + "…"
}

// clean replaces what could disturb a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func visible(status string) string {
	switch r, size := utf8.DecodeRuneInString(status); {
	case size == 0:
		return "."
	case r > ' ' && r < 0x7f:
		return string(r)
	}
	return "?"
}

var sparks = []rune("▁▂▃▄▅▆▇█")

// sparkline draws the last values in a width.
func sparkline(values []float64, width int) string {
	values = values[max(0, len(values)-width):]
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if most > 0 {
			i = int(v / most * float64(len(sparks)-1))
		}
		b.WriteRune(sparks[i])
	}
	return b.String()
}

// bar draws n of of.
func bar(n, of, width int) string {
	if of <= 0 {
		return ""
	}
	full := min(max(n, 0), of) * width / of
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
