//go:build unix

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/preforktest"
)

// The tables of docs/SIGNALS.md that are marked "checked" are compared with the
// code. Each test works out the text of a cell in the page's words; the two
// must be equal.

const signalsPage = "../../docs/SIGNALS.md"

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

func TestSignalsPage(t *testing.T) {
	for mark, check := range map[string]func(t *testing.T, row, columns []string){
		"stop signal": checkStopSignal, "interrupt": checkInterrupt,
		"manager": checkManager, "worker": checkWorker, "effect": checkEffect,
	} {
		t.Run(mark, func(t *testing.T) {
			columns, rows := pageTable(t, mark)
			for _, row := range rows {
				t.Run(row[0]+" "+row[1], func(t *testing.T) { check(t, row, columns) })
			}
		})
	}
	t.Run("untrappable", func(t *testing.T) {
		page := make(map[syscall.Signal]string)
		_, rows := pageTable(t, "untrappable")
		for _, row := range rows {
			page[called(t, row[0]).(syscall.Signal)] = row[1]
		}
		// check returns the error of New for a table. If the table is valid,
		// New refuses the Command.
		check := func(table prefork.Signals) string {
			_, err := prefork.New(prefork.Config{TrapSignals: table, Command: []string{""}})
			return fmt.Sprint(err)
		}
		for sig := syscall.Signal(1); sig < 32; sig++ {
			err := check(prefork.Signals{sig: {}})
			if _, why, _ := strings.Cut(err, "cannot be trapped: "); page[sig] != why {
				t.Errorf("%v: the page has %q, New %s", sig, page[sig], err)
			}
			if err := check(prefork.Signals{usr1: {Signal: sig}}); !strings.Contains(err, "Config.Command") {
				t.Errorf("%v cannot be sent: %s", sig, err)
			}
		}
	})
	t.Run("defaults", func(t *testing.T) {
		_, rows := pageTable(t, "defaults")
		code := defaults(t)
		for _, row := range rows {
			comparePage(t, row[0], row[1], code[row[0]])
			delete(code, row[0])
		}
		if len(code) > 0 {
			t.Errorf("not on the page: %q", code)
		}
	})
}

// defaults returns the behaviour of a Manager with the zero Config, in the words
// of the page.
func defaults(t *testing.T) (code map[string]string) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{}, nil, ignoreSignals)
		table := prefork.Signals{}
		done := r.startLoop()
		time.Sleep(time.Minute)
		for _, sig := range r.traps {
			if sig == syscall.SIGINT { // it counts as the shutdown signal
				continue
			}
			before := len(signalsOf(r.process(1)))
			r.Deliver(sig)
			synctest.Wait()
			table[sig] = prefork.Forward{Signal: signalsOf(r.process(1))[before]}
		}
		<-done
		e := r.exits[0]
		code = map[string]string{
			"TrapSignals": formatSignals(table), "ShutdownSignal": short(r.SignalReceived()),
			"StopTimeout": (e.Uptime - time.Minute).String(), "OrphanTimeout": markerOf(t, r.process(1)).Orphan.String(),
		}
	})
	return code
}

// pageConfig returns the Config of a row that begins with a table and a
// ShutdownSignal.
func pageConfig(t *testing.T, row []string) prefork.Config {
	t.Helper()
	return prefork.Config{TrapSignals: parseSignals(t, row[0]), ShutdownSignal: called(t, row[1])}
}

// checkStopSignal reads the stop signal off a surplus worker, and delivers each
// signal of the table to Run.
func checkStopSignal(t *testing.T, row, columns []string) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pageConfig(t, row)
		cfg.MaxWorkers = 1
		r := newRig(t, cfg, nil, func(p *proctest.Process, sig syscall.Signal) { p.Exit(proc.Status{}) })
		ctx, cancel := context.WithCancel(t.Context())
		done := r.startRun(ctx)
		time.Sleep(time.Minute)
		r.SetMaxWorkers(0)
		synctest.Wait()
		comparePage(t, columns[2], row[2], short(r.process(1).Signals()[0]))
		shutdown := cfg.ShutdownSignal
		if shutdown == nil {
			shutdown = term
		}
		var replace []string
		for sig := range cfg.TrapSignals {
			before := r.Generation()
			if sig != shutdown {
				r.Deliver(sig)
			}
			synctest.Wait()
			if r.Generation() > before {
				replace = append(replace, short(sig))
			}
		}
		slices.Sort(replace)
		if replace == nil {
			replace = []string{"none"}
		}
		comparePage(t, columns[3], row[3], strings.Join(replace, ", "))
		cancel()
		<-done
	})
}

// checkInterrupt runs a program that interrupts itself in Start, and in Run.
func checkInterrupt(t *testing.T, row, columns []string) {
	if signal.Ignored(os.Interrupt) {
		t.Skip("interrupts are ignored here (nohup?), and so they would be in the programs of this test")
	}
	for i, call := range []string{"Start", "Run"} {
		p := preforktest.Start(t, "interruptItself", row[0], row[1], call)
		code := p.Expect(`^it (.*)$|^(begin)$`)[1]
		if code == "" { // it interrupts itself next
			p.Wait()
			p.WaitGone()
			code = "is not trapped"
			for _, line := range p.Lines() {
				if text, ok := strings.CutPrefix(line, "it "); ok {
					code = text
				}
			}
		}
		if status := p.Wait().Sys().(syscall.WaitStatus); (code == "is not trapped") != (status.Signaled() && status.Signal() == syscall.SIGINT) {
			t.Errorf("%s: %q, and the process ended with %v", call, code, p.Wait())
		}
		comparePage(t, columns[2+i], row[2+i], code)
	}
}

// checkManager delivers the signal of each column to a Manager in the state of
// the row. The pretended workers ignore every signal until the effect is known.
func checkManager(t *testing.T, row, columns []string) {
	for i, column := range columns[1:] {
		t.Run(column, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := parseSignals(t, strings.Join(columns[1:5], ", "))
				sig := os.Signal(syscall.SIGINT)
				if column != "Ctrl-C" {
					name, _, _ := strings.Cut(column, " → ")
					sig = called(t, name)
				}
				comparePage(t, row[0], row[1+i], managerDoes(t, table, row[0], sig))
			})
		})
	}
}

func managerDoes(t *testing.T, table prefork.Signals, state string, sig os.Signal) string {
	reload := error(nil)
	cfg := prefork.Config{MaxWorkers: 2, TrapSignals: table, StopTimeout: -1, Reload: func() ([]byte, error) { return nil, reload }}
	r := newRig(t, cfg, nil, func(p *proctest.Process, sig syscall.Signal) {
		if sig == kill {
			p.Exit(proc.Status{Signal: kill})
		}
	})
	start := func() { r.Start() }
	run := func() { r.Run(context.Background(), noWork) }
	wait := func() { r.WaitAllChildren(context.Background()) }
	returned := make(chan bool, 2)
	var calls atomic.Int32 // calls in progress
	call := func(f func()) {
		calls.Add(1)
		go func() {
			defer calls.Add(-1)
			f()
			returned <- true
		}()
		synctest.Wait()
		time.Sleep(time.Minute) // in the bubble: until everything has happened
	}
	has := func() bool {
		synctest.Wait()
		select {
		case <-returned:
			return true
		default:
			return false
		}
	}
	arrive := func(sig os.Signal) {
		r.Deliver(sig)
		synctest.Wait()
	}
	// begin brings the Manager into a state with workers and without a blocking
	// call.
	begin := func() {
		call(start)
		arrive(syscall.SIGUSR2)
		if !has() {
			t.Fatal("USR2 does not end Start")
		}
	}
	waits, kept := false, (func())(nil) // if the signal is kept: the call after the signal
	switch state {
	case "before the first Start":
		kept = start
	case "between two Starts":
		begin()
		kept = start
	case "before WaitAllChildren":
		begin()
		kept, waits = wait, true
	case "in Start, StartFunc":
		call(start)
	case "in Run", "in Run, and Reload fails":
		call(run)
		if state != "in Run" {
			reload = errors.New("a typo")
		}
	case "in WaitAllChildren":
		begin()
		call(wait)
		waits = true
	case "stopping, after TERM", "stopping, after Ctrl-C":
		begin()
		call(wait)
		arrive(map[bool]os.Signal{true: syscall.SIGINT, false: term}[strings.HasSuffix(state, "Ctrl-C")])
		waits = true
	default:
		t.Fatalf("no such state: %q", state)
	}
	sent := func() (all []syscall.Signal) {
		if len(r.fake.Started()) > 0 {
			all = signalsOf(r.process(1))
		}
		return all
	}
	before, generation := len(sent()), r.Generation()
	arrive(sig)
	text := ""
	if kept != nil {
		if len(sent()) > before || has() {
			t.Fatal("it was not kept")
		}
		text = "kept; "
		call(kept)
	}
	switch all := sent(); {
	case len(r.fake.Started()) == 0:
		text += "spawns nobody"
	case len(all) == before:
		text += "sends nothing"
	default:
		for _, s := range all[before:] {
			text += "sends " + short(s)
		}
	}
	ended := has()
	for _, p := range r.fake.Started() {
		p.Exit(proc.Status{})
	}
	time.Sleep(time.Minute)
	switch {
	case ended && !waits:
		text += ", returns"
	case waits && (ended || has()): // KILL ends the workers, and so the call
		text += ", waits"
	case has():
		text += ", ends"
	case r.Generation() > generation:
		text += ", next generation"
	default:
		text += ", goes on"
		if r.NumWorkers() != 2 || r.Generation() != generation {
			t.Errorf("it continues with %d workers in generation %d after %d", r.NumWorkers(), r.Generation(), generation)
		}
	}
	finishPage(r, &calls, has)
	return text
}

// finishPage ends the calls in progress, for which the bubble would wait.
func finishPage(r *rig, calls *atomic.Int32, has func() bool) {
	for range 3 {
		if calls.Load() == 0 {
			break
		}
		r.Deliver(term)
		synctest.Wait()
		for _, p := range r.fake.Started() {
			p.Exit(proc.Status{})
		}
		synctest.Wait()
	}
	has()
	if r.NumWorkers() > 0 {
		r.WaitAllChildren(context.Background())
	}
}
