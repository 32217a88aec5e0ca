package top

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/prefork-go/prefork/ops/client"
)

// The workers of many pools are shown together, and one pool by the key p, which shows
// all again after the last one. A key that is for a pool needs one.
func TestManyPools(t *testing.T) {
	now := time.Now()
	s := &client.Status{Name: "services", PID: 7, Now: now, Started: now}
	for i := range 5 {
		s.Pools = append(s.Pools, client.Pool{
			Name: fmt.Sprintf("svc%d", i), Settled: i > 0, Limits: client.Limits{MaxWorkers: 1}, Counts: client.Counts{Ready: 1},
			Workers: []client.Worker{{ID: 9 - i, PID: 100 + i, State: "ready", Started: now}},
		})
	}
	m := newModel(Config{Interval: time.Second})
	show := func() string { return ansi.Strip(m.screen()) }
	press := func(key rune) { m.Update(tea.KeyPressMsg{Code: key, Text: string(key)}) }
	m.Update(statusMsg{at: now, status: s})
	if text := show(); !strings.Contains(text, "4 of 5 pools settled  5/5 ready") || strings.Count(text, "\nsvc") != 5 || !strings.Contains(text, "POOL  SLOT") || strings.Index(text, "svc0") > strings.Index(text, "svc4") {
		t.Errorf("all pools:\n%s", text)
	}
	for _, key := range "R+-P" {
		if press(key); m.running != 0 || m.message != "choose a pool first: p" {
			t.Errorf("%c: %q, %d commands", key, m.message, m.running)
		}
	}
	m.Update(tea.KeyPressMsg{Code: tea.KeyDown})
	press('k')
	if m.confirm == nil || m.confirm.command.Pool != "svc1" || m.confirm.question != "kill worker 8 of svc1 (pid 101)? y/n" {
		t.Errorf("k in the second row: %+v", m.confirm)
	}
	press('n')
	for i := 1; i < 5; i++ { // from the selected row on
		press('p')
		if text := show(); !strings.Contains(text, fmt.Sprintf(`> pool "svc%d"`, i)) || strings.Contains(text, "POOL") || !strings.Contains(text, fmt.Sprint(100+i)) {
			t.Errorf("pool %d:\n%s", i, text)
		}
	}
	press('p')
	if text := show(); strings.Count(text, "\nsvc") != 5 {
		t.Errorf("all pools again:\n%s", text)
	}
	m.Update(statusMsg{at: now, status: &client.Status{Name: "services", Now: now, Pools: s.Pools[:3]}})
	if text := show(); !strings.Contains(text, `> pool "svc`) || strings.Contains(text, "POOL") {
		t.Errorf("three pools:\n%s", text)
	}
}
