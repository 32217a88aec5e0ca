//go:build unix

package prefork

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/proc"
)

// The tables of docs/SIGNALS.md that are marked "checked" are compared with what the code does. What a cell says is in
// each case worked out anew, in the page's words, and must be the same text.

const signalsPage = "docs/SIGNALS.md"

// pageTable is the table behind a mark: its columns, and its rows without them.
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

// short is a signal as the page calls it.
func short(sig os.Signal) string { return strings.TrimPrefix(signalName(sig), "SIG") }

// called is the signal that the page calls so; nil for none.
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

// parseSignals reads a signal table as the page writes it: "HUP → TERM each 1s, USR1 → nothing".
func parseSignals(t *testing.T, text string) Signals {
	t.Helper()
	switch text {
	case "nil":
		return nil
	case "empty":
		return Signals{}
	}
	table := Signals{}
	for entry := range strings.SplitSeq(text, ", ") {
		received, sent, ok := strings.Cut(entry, " → ")
		sent, interval, staggered := strings.Cut(sent, " each ")
		f := Forward{Signal: called(t, sent)}
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

func formatSignals(table Signals) string {
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
		t.Errorf("%s: the page says %q, the code does %q", where, page, code)
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
		for sig := syscall.Signal(1); sig < 32; sig++ {
			if page[sig] != untrappable(sig) {
				t.Errorf("%v: the page says %q, the code %q", sig, page[sig], untrappable(sig))
			}
			if (page[sig] != "") != (checkTrap("", sig) != nil) {
				t.Errorf("%v: on the page %q; checkTrap: %v", sig, page[sig], checkTrap("", sig))
			}
			if err := checkSignal("", sig); err != nil {
				t.Errorf("%v cannot be sent: %v", sig, err)
			}
		}
	})
	t.Run("defaults", func(t *testing.T) {
		cfg, err := Config{}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		_, rows := pageTable(t, "defaults")
		page := make(map[string]string)
		for _, row := range rows {
			page[row[0]] = row[1]
		}
		for field, value := range map[string]string{
			"TrapSignals": formatSignals(cfg.TrapSignals), "ShutdownSignal": short(cfg.ShutdownSignal),
			"StopTimeout": cfg.StopTimeout.String(), "OrphanTimeout": cfg.OrphanTimeout.String(),
		} {
			comparePage(t, field, page[field], value)
			delete(page, field)
		}
		if len(page) > 0 {
			t.Errorf("not compared: %q", page)
		}
	})
}

// pageConfig is the Config of a row that begins with a table and a ShutdownSignal.
func pageConfig(t *testing.T, row []string) Config {
	t.Helper()
	return Config{TrapSignals: parseSignals(t, row[0]), ShutdownSignal: called(t, row[1])}
}

func checkStopSignal(t *testing.T, row, columns []string) {
	r := newRig(t, pageConfig(t, row), nil, nil)
	comparePage(t, columns[2], row[2], short(r.cfg.stopSignal()))
	if r.stop != r.cfg.stopSignal() {
		t.Errorf("the Manager's stop signal is %v, that of its Config %v", r.stop, r.cfg.stopSignal())
	}
	var replace []string
	for sig := range r.cfg.TrapSignals {
		if sig != r.cfg.ShutdownSignal && r.replaces(sig) { // acceptInRun asks in this order
			replace = append(replace, short(sig))
		}
	}
	slices.Sort(replace)
	if replace == nil {
		replace = []string{"none"}
	}
	comparePage(t, columns[3], row[3], strings.Join(replace, ", "))
}

// checkInterrupt has a process that trapped what Start (or Run) traps interrupt itself.
func checkInterrupt(t *testing.T, row, columns []string) {
	if signal.Ignored(os.Interrupt) {
		t.Skip("interrupts are ignored here (nohup?), and so they would be in the programs of this test")
	}
	for i, call := range []string{"Start", "Run"} {
		p := startPage(t, "interrupt", row[0], row[1], call)
		code := p.Expect(`^it (.*)$|^(begin)$`)[1]
		if code == "" { // it is about to interrupt itself
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

// checkManager has the signal of each column arrive in the state of the row, at a Manager with pretended workers that
// obey nobody until all is seen.
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

func managerDoes(t *testing.T, table Signals, state string, sig os.Signal) string {
	reload := error(nil)
	cfg := Config{MaxWorkers: 2, TrapSignals: table, StopTimeout: -1, Reload: func() ([]byte, error) { return nil, reload }}
	r := newRig(t, cfg, nil, func(p *proc.FakeProcess, sig syscall.Signal) {
		if sig == kill {
			p.Exit(proc.Status{Signal: kill})
		}
	})
	r.interrupts.Store(1) // as trapInterrupt does, which has a table of its own
	start := func() { r.Start() }
	run := func() { r.Run(context.Background(), noWork) }
	wait := func() { r.WaitAllChildren(context.Background()) }
	returned := make(chan bool, 2) // never waited for by more than one call
	call := func(f func()) {
		go func() {
			f()
			returned <- true
		}()
		synctest.Wait()
		time.Sleep(time.Minute) // in the bubble: until nothing moves
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
		r.arrive(sig)
		synctest.Wait()
	}
	// begin brings the Manager into a state with workers and no call under way.
	begin := func() {
		call(start)
		arrive(syscall.SIGUSR2)
		if !has() {
			t.Fatal("USR2 does not end Start")
		}
	}
	waits, kept := false, (func())(nil) // kept: the call that comes after the signal
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
	said := ""
	if kept != nil {
		if len(sent()) > before || has() {
			t.Fatal("it was not kept")
		}
		said = "kept; "
		call(kept)
	}
	switch all := sent(); {
	case len(r.fake.Started()) == 0:
		said += "spawns nobody"
	case len(all) == before:
		said += "sends nothing"
	default:
		for _, s := range all[before:] {
			said += "sends " + short(s)
		}
	}
	ended := has()
	for _, p := range r.fake.Started() {
		p.Exit(proc.Status{})
	}
	time.Sleep(time.Minute)
	switch {
	case ended && !waits:
		said += ", returns"
	case waits && (ended || has()): // KILL ends them, and so the call
		said += ", waits"
	case has():
		said += ", ends"
	case r.Generation() > generation:
		said += ", next generation"
	default:
		said += ", goes on"
		if r.NumWorkers() != 2 || r.Generation() != generation {
			t.Errorf("goes on with %d workers in generation %d after %d", r.NumWorkers(), r.Generation(), generation)
		}
	}
	finishPage(t, r, has)
	return said
}

// finishPage ends what is still under way, or the bubble would wait for it.
func finishPage(t *testing.T, r *rig, has func() bool) {
	for range 3 {
		if r.busy.Load() == nil {
			break
		}
		r.arrive(term)
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

// pageProgram is the argument by which a process of the test binary becomes one of this page's programs, in its workers
// too. What Main runs for other tests is known to the package's outside alone.
const pageProgram = "a program of " + signalsPage
