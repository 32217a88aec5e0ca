package top

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/prefork-go/prefork/ops/client"
)

// A model is the state of the screen.
type model struct {
	cfg  Config
	feed *feed
	send func(any)

	width, height int

	status  *client.Status
	rates   rates
	pool    string // the one whose workers are shown, unless all are
	one     bool   // the user has chosen that one, of many
	lastErr error
	since   time.Time // of lastErr; or when the manager was gone

	rows     []row // as they are shown
	selected rowKey
	offset   int // of the first row on the screen
	order    int // of sortOrders
	filter   string
	pane     pane
	events   []string

	typing  bool // a filter
	confirm *action
	message string
	bad     bool // the message is an error
	running int  // commands under way
}

// A pane is what the largest part of the screen shows.
type pane int

const (
	paneWorkers pane = iota
	paneEvents
	paneHelp
)

// A rowKey is a row that the cursor stays on.
type rowKey struct {
	pool     string
	slot, id int
}

var noRow = rowKey{slot: -1, id: -1}

// manyPools is the number of pools from which on the workers of all are shown, as those
// of a directory of services, until the user chooses one.
const manyPools = 4

// all reports whether the workers of all pools are shown.
func (m *model) all() bool { return m.status != nil && len(m.status.Pools) >= manyPools && !m.one }

// An action is a command that a key gives.
type action struct {
	question string
	command  client.Command
}

// doneMsg is the outcome of a command.
type doneMsg struct {
	text string
	bad  bool
}

const (
	keptEvents     = 200
	commandTimeout = time.Minute
)

func newModel(cfg Config) *model {
	return &model{cfg: cfg, width: 80, height: 24, selected: noRow}
}

func (m *model) Init() tea.Cmd { return nil }

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case statusMsg:
		m.look(msg)
	case eventMsg:
		m.addEvent(msg.Event)
	case doneMsg:
		m.running--
		m.message, m.bad = msg.text, msg.bad
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.ResumeMsg:
		wake(m.feed.now)
	}
	m.layout()
	return m, nil
}

func (m *model) look(msg statusMsg) {
	if msg.err != nil {
		if errors.Is(msg.err, context.Canceled) {
			return
		}
		if m.lastErr == nil {
			m.since = msg.at
		}
		m.lastErr = msg.err
		return
	}
	m.lastErr = nil
	m.status = msg.status
	m.rates.add(msg.at, msg.status, m.cfg.Interval)
	if poolOf(m.status, m.pool) == nil && len(m.status.Pools) > 0 {
		m.pool = m.status.Pools[0].Name
	}
}

func (m *model) addEvent(e client.Event) {
	pool := ""
	if m.status != nil && len(m.status.Pools) > 1 && e.Pool != "" {
		pool = e.Pool + "  "
	}
	m.events = append(m.events, clean(fmt.Sprintf("%s  %s%s", e.Time.Local().Format(time.TimeOnly), pool, e.Text)))
	if len(m.events) > keptEvents {
		m.events = m.events[len(m.events)-keptEvents:]
	}
}

// layout computes the rows.
func (m *model) layout() {
	p := poolOf(m.status, m.pool)
	if p == nil {
		m.rows = nil // the last pool has gone
		return
	}
	if m.all() {
		m.rows = nil
		for i := range m.status.Pools {
			m.rows = append(m.rows, rowsOf(&m.status.Pools[i], m.now(), &m.rates)...)
		}
	} else {
		m.rows = rowsOf(p, m.now(), &m.rates)
	}
	if m.filter != "" {
		m.rows = slices.DeleteFunc(m.rows, func(r row) bool { return !strings.Contains(r.text(), strings.ToLower(m.filter)) })
	}
	slices.SortStableFunc(m.rows, sortOrders[m.order].compare)
	if m.cursor() < 0 && len(m.rows) > 0 {
		m.selectRow(m.atSlot(m.selected))
	}
}

// now is the time of the manager. It stands still when the manager is gone.
func (m *model) now() time.Time { return m.status.Now }

// text is what a filter searches.
func (r *row) text() string {
	return strings.ToLower(strings.Join([]string{
		r.pool, "slot" + strconv.Itoa(r.slot), strconv.Itoa(r.id), strconv.Itoa(r.pid), "gen" + strconv.Itoa(r.gen), r.state, r.last,
	}, " "))
}

// cursor returns the index of the selected row; -1 for none.
func (m *model) cursor() int {
	return slices.IndexFunc(m.rows, func(r row) bool { return r.key() == m.selected })
}

func (r *row) key() rowKey { return rowKey{r.pool, r.slot, r.id} }

// atSlot returns the index of a row in the slot of another one, or 0.
func (m *model) atSlot(k rowKey) int {
	return max(0, slices.IndexFunc(m.rows, func(r row) bool { return r.pool == k.pool && r.slot == k.slot }))
}

func (m *model) selectRow(i int) {
	if len(m.rows) > 0 {
		m.selected = m.rows[min(max(i, 0), len(m.rows)-1)].key()
	}
}

func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	defer m.layout()
	name := k.String()
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case name == "ctrl+z":
		return tea.Suspend
	case m.typing:
		m.typeFilter(k)
		return nil
	case m.confirm != nil:
		a := *m.confirm
		m.confirm, m.message = nil, ""
		if name == "y" || name == "Y" {
			return m.command(a.command)
		}
		return nil
	}
	m.message, m.bad = "", false
	if m.all() && strings.Contains("+-PR", name) {
		m.message = "choose a pool first: p"
		return nil
	}
	switch name {
	case "q":
		return tea.Quit
	case "esc":
		m.pane, m.filter = paneWorkers, ""
	case "?", "h":
		m.toggle(paneHelp)
	case "e":
		m.toggle(paneEvents)
	case "up":
		m.selectRow(m.cursor() - 1)
	case "down":
		m.selectRow(m.cursor() + 1)
	case "pgup":
		m.selectRow(m.cursor() - m.height/2)
	case "pgdown":
		m.selectRow(m.cursor() + m.height/2)
	case "home":
		m.selectRow(0)
	case "end":
		m.selectRow(len(m.rows) - 1)
	case "/":
		m.typing = true
	case "s":
		m.order = (m.order + 1) % len(sortOrders)
		m.message = "sorted by " + sortOrders[m.order].name
	case "p":
		m.nextPool()
	case "r", "t", "k":
		return m.onWorker(name)
	case "R":
		return m.command(client.Command{Name: "reload", Pool: m.cfg.Pool})
	case "U":
		return m.command(client.Command{Name: "upgrade"})
	case "+":
		return m.command(client.Command{Name: "scale", Pool: m.pool, Query: map[string][]string{"workers": {"+1"}}})
	case "-":
		return m.command(client.Command{Name: "scale", Pool: m.pool, Query: map[string][]string{"workers": {"-1"}}})
	case "P":
		return m.pause()
	}
	return nil
}

func (m *model) toggle(p pane) {
	if m.pane == p {
		p = paneWorkers
	}
	m.pane = p
}

func (m *model) typeFilter(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		m.filter += k.Text
	}
}

// nextPool shows the next pool: of many, that of the selected row first, and all again
// after the last one.
func (m *model) nextPool() {
	if m.status == nil || len(m.status.Pools) < 2 {
		return
	}
	i := slices.IndexFunc(m.status.Pools, func(p client.Pool) bool { return p.Name == m.pool })
	switch many := len(m.status.Pools) >= manyPools; {
	case m.all():
		m.one = true
		if at := m.cursor(); at >= 0 {
			m.pool = m.rows[at].pool
		}
	case many && i == len(m.status.Pools)-1:
		m.one = false
	default:
		m.pool = m.status.Pools[(i+1)%len(m.status.Pools)].Name
	}
	m.selected, m.offset = noRow, 0
}

// onWorker acts on the selected worker. What ends one asks first.
func (m *model) onWorker(key string) tea.Cmd {
	i := m.cursor()
	if i < 0 || !m.rows[i].worker {
		m.message = "there is no worker in this line"
		return nil
	}
	w := m.rows[i]
	verb := map[string]string{"r": "replace", "t": "stop", "k": "kill"}[key]
	of := ""
	if m.all() {
		of = " of " + clean(w.pool)
	}
	a := action{
		question: fmt.Sprintf("%s worker %d%s (pid %d)? y/n", verb, w.id, of, w.pid),
		command:  client.Command{Name: fmt.Sprintf("workers/%d/%s", w.id, verb), Pool: w.pool},
	}
	if verb == "replace" {
		return m.command(a.command)
	}
	m.confirm = &a
	return nil
}

func (m *model) pause() tea.Cmd {
	p := poolOf(m.status, m.pool)
	if p == nil {
		return nil
	}
	name := "pause"
	if p.Pausing {
		name = "resume"
	}
	return m.command(client.Command{Name: name, Pool: m.pool})
}

// command carries a command out in the background.
func (m *model) command(c client.Command) tea.Cmd {
	if m.status != nil && len(m.status.Pools) == 1 && m.cfg.Pool == "" {
		c.Pool = "" // the name may be ""
	}
	c.Timeout = commandTimeout
	m.running++
	name := CommandName(c.Name)
	m.message, m.bad = name+" …", false
	return func() tea.Msg {
		answer, err := m.cfg.Client.Do(context.Background(), c)
		switch {
		case err != nil:
			return doneMsg{fmt.Sprintf("%s: %v", name, err), true}
		case answer.Outcome == client.Done:
			return doneMsg{fmt.Sprintf("%s: %s", name, answer.Text), false}
		}
		return doneMsg{fmt.Sprintf("%s %s: %s", name, answer.Outcome, answer.Error), true}
	}
}

// CommandName returns the name of a command for people: "kill of worker 12" for
// "workers/12/kill".
func CommandName(command string) string {
	if f := strings.Split(command, "/"); len(f) == 3 && f[0] == "workers" {
		return f[2] + " of worker " + f[1]
	}
	return command
}
