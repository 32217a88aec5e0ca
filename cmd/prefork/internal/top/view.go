package top

import (
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/prefork-go/prefork/ops/client"
)

var (
	boldStyle  = lipgloss.NewStyle().Bold(true)
	faintStyle = lipgloss.NewStyle().Faint(true)
	cursor     = lipgloss.NewStyle().Reverse(true)
	badStyle   = lipgloss.NewStyle().Foreground(lipgloss.Red)
	warnStyle  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	goodStyle  = lipgloss.NewStyle().Foreground(lipgloss.Green)
)

func (m *model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

// screen returns the lines of the screen.
func (m *model) screen() string {
	if m.height < 1 || m.width < 1 {
		return ""
	}
	var lines []string
	add := func(style lipgloss.Style, text string) {
		lines = append(lines, style.Render(ansi.Truncate(text, m.width, "…")))
	}
	if m.status == nil {
		text := "asking the manager …"
		if m.lastErr != nil {
			text = m.gone()
		}
		add(boldStyle, text)
	} else {
		add(boldStyle, title(m.status))
		m.heads(add)
	}
	body := m.height - len(lines) - 1
	switch m.pane {
	case paneHelp:
		for _, line := range help[:min(max(body, 0), len(help))] {
			add(lipgloss.NewStyle(), line)
		}
	case paneEvents:
		for _, line := range m.events[max(0, len(m.events)-max(body, 0)):] {
			add(lipgloss.NewStyle(), line)
		}
	default:
		m.workers(add, body)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	text, style := m.footer()
	add(style, text)
	return strings.Join(lines[max(0, len(lines)-m.height):], "\n")
}

// heads adds the lines about the pools.
func (m *model) heads(add func(lipgloss.Style, string)) {
	if m.all() {
		add(lipgloss.NewStyle(), headOfAll(m.status.Pools))
		return
	}
	room := 4
	if m.height < 16 {
		room = 2
	}
	for i := range m.status.Pools {
		p := &m.status.Pools[i]
		name := label(m.status, p)
		shown := p.Name == m.pool
		lines := room
		switch {
		case name == "":
		case shown:
			name = "> " + name
		case m.height < 16 || len(m.status.Pools) > 3:
			continue
		default:
			name, lines = "  "+name, 1
		}
		for _, line := range head(p, m.now(), &m.rates, name, lines, m.width) {
			style := lipgloss.NewStyle()
			if line.bad {
				style = warnStyle
			}
			add(style, line.text)
		}
	}
}

// workers adds the table in a number of lines.
func (m *model) workers(add func(lipgloss.Style, string), room int) {
	lines := table(m.rows, m.width, m.all())
	if room < 1 || m.status == nil {
		return
	}
	add(faintStyle, lines[0])
	lines, room = lines[1:], room-1
	at := m.cursor()
	if at < m.offset {
		m.offset = max(at, 0)
	}
	if at >= m.offset+room {
		m.offset = at - room + 1
	}
	m.offset = min(m.offset, max(0, len(lines)-room))
	for i := m.offset; i < len(lines) && i < m.offset+room; i++ {
		style := styleOf(&m.rows[i])
		text := lines[i]
		if i == at {
			style = cursor
			text += strings.Repeat(" ", max(0, m.width-ansi.StringWidth(text)))
		}
		add(style, text)
	}
}

func styleOf(r *row) lipgloss.Style {
	switch r.kind {
	case "ready":
		if r.status == "." || r.status == "_" {
			return lipgloss.NewStyle()
		}
		return goodStyle
	case "killed", "waits":
		return badStyle
	case "standby":
		return faintStyle
	}
	return warnStyle
}

func (m *model) footer() (string, lipgloss.Style) {
	switch {
	case m.typing:
		return "/" + m.filter + "_   Enter keeps the filter, Esc drops it", boldStyle
	case m.confirm != nil:
		return m.confirm.question, boldStyle
	case m.lastErr != nil && m.status != nil:
		return m.gone(), badStyle
	case m.message != "":
		if m.bad {
			return clean(m.message), badStyle
		}
		return clean(m.message), boldStyle
	case m.filter != "":
		return "filter /" + m.filter + "   Esc drops it", faintStyle
	}
	text := "? keys  q quit  r replace  t stop  k kill  R reload  e events  / filter  s sort"
	if m.width < 60 {
		text = "? keys  q quit  R reload  e events"
	}
	return text, faintStyle
}

// gone describes a manager that does not answer.
func (m *model) gone() string {
	since := client.Age(time.Since(m.since))
	if isGone(m.lastErr) {
		return "gone since " + since
	}
	return "no answer since " + since + ": " + clean(m.lastErr.Error())
}

var help = []string{
	"up down PgUp PgDn Home End   choose a worker",
	"r   replace it: the replacement is ready first",
	"t   stop it (asks)          k   kill it (asks)",
	"R   reload                  U   upgrade the manager",
	"+ - one worker more or less P   pause, or resume",
	"p   one pool, or the next   e   events",
	"/   filter                  s   next order",
	"?   this                    q   quit",
}
