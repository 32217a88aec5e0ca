//go:build unix

package manager_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
)

// pageTable returns the columns and the rows of the table after a mark.
func pageTable(t *testing.T, mark string) (columns []string, rows [][]string) {
	t.Helper()
	page, err := os.ReadFile(signalsPage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "<!-- checked: "+mark+" -->\n\n")
	if !found {
		t.Fatalf("%s has no table that is marked %q", signalsPage, mark)
	}
	text, _, _ := strings.Cut(rest, "\n\n")
	for line := range strings.Lines(text) {
		var row []string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		rows = append(rows, row)
	}
	if len(rows) < 3 {
		t.Fatalf("%s: the table marked %q is empty", signalsPage, mark)
	}
	for _, row := range rows {
		if len(row) != len(rows[0]) {
			t.Fatalf("%s: the table marked %q has rows of different length: %q", signalsPage, mark, row)
		}
	}
	return rows[0], rows[2:]
}

// short returns the page's name of a signal.
func short(sig os.Signal) string {
	if sig == nil {
		return "nothing"
	}
	return strings.TrimPrefix(unix.SignalName(sig.(syscall.Signal)), "SIG")
}

// called returns the signal of a name on the page; nil means none.
func called(t *testing.T, name string) os.Signal {
	t.Helper()
	if name == "nothing" || name == "nil" {
		return nil
	}
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		t.Fatalf("%s: there is no signal %q", signalsPage, name)
	}
	return sig
}

// parseSignals parses a signal table as the page writes it: "HUP → TERM each
// 1s, USR1 → nothing".
func parseSignals(t *testing.T, text string) prefork.Signals {
	t.Helper()
	switch text {
	case "nil":
		return nil
	case "empty":
		return prefork.Signals{}
	}
	table := prefork.Signals{}
	for entry := range strings.SplitSeq(text, ", ") {
		received, sent, ok := strings.Cut(entry, " → ")
		sent, interval, staggered := strings.Cut(sent, " each ")
		f := prefork.Forward{Signal: called(t, sent)}
		if staggered {
			var err error
			if f.Interval, err = time.ParseDuration(interval); err != nil {
				t.Fatalf("%s: %q: %v", signalsPage, entry, err)
			}
		}
		if !ok {
			t.Fatalf("%s: %q is no entry of a signal table", signalsPage, entry)
		}
		table[called(t, received)] = f
	}
	return table
}

func formatSignals(table prefork.Signals) string {
	var entries []string
	for sig, f := range table {
		entry := short(sig) + " → " + short(f.Signal)
		if f.Interval > 0 {
			entry += " each " + f.Interval.String()
		}
		entries = append(entries, entry)
	}
	slices.Sort(entries)
	return strings.Join(entries, ", ")
}

func comparePage(t *testing.T, where, page, code string) {
	t.Helper()
	if page != code {
		t.Errorf("%s: the page has %q, the code does %q", where, page, code)
	}
}
